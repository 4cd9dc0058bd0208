package command

import (
	"errors"
	"net"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// harmless are the errors that upstream's code logs as such, and that need nobody's attention. Each is known by what it is,
// or, where upstream has made mere text of it, by how that text begins or ends.
var harmless = []struct {
	why string
	is  func(error) bool
}{
	{
		"the object has changed since it was read: whoever gets this answer reads it again and tries anew, as the CronJob controller does at each firing",
		apierrors.IsConflict,
	},
	{
		"the same, of which mere text is left, as the controllers of PersistentVolumes log it when one comes or goes",
		ends("the object has been modified; please apply your changes to the latest version and try again"),
	},
	{
		"this process has closed the connection itself, as at the end of each exec",
		func(err error) bool { return errors.Is(err, net.ErrClosed) },
	},
	{
		"an exec's client is told itself, such as that there is no such command",
		begins("error executing command in container: "),
	},
	{
		"an attach's client is told itself",
		begins("error attaching to container: "),
	},
	{
		"a port forwarding's client is told itself, such as that nobody listens there",
		begins("error forwarding port "),
	},
}

func begins(text string) func(error) bool {
	return func(err error) bool { return strings.HasPrefix(err.Error(), text) }
}

func ends(text string) func(error) bool {
	return func(err error) bool { return strings.HasSuffix(err.Error(), text) }
}

// isHarmless says whether err is one of those.
func isHarmless(err error) bool {
	if err == nil {
		return false
	}
	for _, h := range harmless {
		if h.is(err) {
			return true
		}
	}
	return false
}
