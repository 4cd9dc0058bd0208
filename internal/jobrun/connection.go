package jobrun

import (
	"errors"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// connection tells a loss of the API, and its return, once each.
type connection struct {
	output *Output
	lost   bool
}

// err takes what a watch complains of. That a watch ends and begins anew, or is told
// that its version is too old, is its everyday; an API that doesn't answer isn't.
func (c *connection) err(err error) {
	if c.lost || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || utilnet.IsProbableEOF(err) || utilnet.IsTimeout(err) {
		return
	}
	c.lost = true
	if request := (*url.Error)(nil); errors.As(err, &request) {
		err = request.Err // without the watch's long address
	}
	c.output.Say("the API doesn't answer, and is tried again: %v", err)
}

// back takes that a watch has been answered.
func (c *connection) back() {
	if c.lost {
		c.lost = false
		c.output.Say("the API answers again")
	}
}
