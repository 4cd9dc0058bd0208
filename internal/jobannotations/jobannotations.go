// Package jobannotations has the annotations by which a Job asks for what
// Kubernetes' API has no field for: their names, what they mean, and what is
// wrong with one. The Job engine reads them; errand's API refuses what it
// couldn't, and warns of what it wouldn't.
package jobannotations

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Without them a Job is run as Kubernetes has it.
const (
	// PodFailureBackoff is the delay before the Job's first failed pod is replaced, which doubles with each failure up to
	// MaxPodFailureBackoff: durations such as 500ms; 0s is no delay.
	PodFailureBackoff    = "errand.dev/pod-failure-backoff"
	MaxPodFailureBackoff = "errand.dev/max-pod-failure-backoff"
	// ImagePullDeadline is how long after a pod's start an image that can't be pulled fails the Job: a duration; 0s is at once.
	ImagePullDeadline = "errand.dev/image-pull-deadline"
	// TTLAfterSuccess and TTLAfterFailure take the place of spec.ttlSecondsAfterFinished for a Job that ends that way: seconds,
	// or "never".
	TTLAfterSuccess = "errand.dev/ttl-seconds-after-success"
	TTLAfterFailure = "errand.dev/ttl-seconds-after-failure"
)

// Never is the TTL of a Job that is kept.
const Never = "never"

// checks say of each annotation what is wrong with its value.
var checks = map[string]func(value string) error{
	PodFailureBackoff:    checkDuration,
	MaxPodFailureBackoff: checkDuration,
	ImagePullDeadline:    checkDuration,
	TTLAfterSuccess:      checkTTL,
	TTLAfterFailure:      checkTTL,
}

const (
	prefix = "errand.dev/"
	// rerunOf is what errand rerun notes on a Job; the engine doesn't read it.
	rerunOf = prefix + "rerun-of"
)

// Unknown says of each annotation with errand's prefix that there is no such one: it is most likely mistyped, and would do nothing.
// It is no error: another version of errand may know it.
func Unknown(annotations map[string]string, path *field.Path) []string {
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if _, known := checks[name]; known || name == rerunOf || !strings.HasPrefix(name, prefix) {
			continue
		}
		warnings = append(warnings, fmt.Sprintf("%s: errand knows no such annotation, and it does nothing; there are %s",
			path.Key(name), strings.Join(slices.Sorted(maps.Keys(checks)), ", ")))
	}
	return warnings
}

// Misplaced says of each annotation for the engine that it does nothing where it stands, at path: it is read at another.
func Misplaced(annotations map[string]string, path, read *field.Path) []string {
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if _, known := checks[name]; known {
			warnings = append(warnings, fmt.Sprintf("%s: errand reads this annotation in %s, and here it does nothing", path.Key(name), read))
		}
	}
	return warnings
}

// Validate returns all that is wrong with a Job's annotations for the engine.
func Validate(annotations map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if value, ok := annotations[name]; ok {
			if err := checks[name](value); err != nil {
				errs = append(errs, field.Invalid(path.Key(name), value, err.Error()))
			}
		}
	}
	return errs
}

func checkDuration(value string) error {
	_, err := parseDuration(value)
	return err
}

func checkTTL(value string) error {
	_, _, err := parseTTL(value)
	return err
}

func parseDuration(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("must be a duration such as 500ms, 30s or 1h, or 0s")
	}
	return d, nil
}

// parseTTL returns how long a finished Job is kept; limited is false if it is kept for ever.
func parseTTL(value string) (ttl time.Duration, limited bool, err error) {
	if value == Never {
		return 0, false, nil
	}
	seconds, err := strconv.ParseInt(value, 10, 32)
	if err != nil || seconds < 0 {
		return 0, false, fmt.Errorf("must be a number of seconds, or %q", Never)
	}
	return time.Duration(seconds) * time.Second, true, nil
}

// Duration is what one of the annotations says that are durations; ok is false if it says nothing, or nothing that Validate lets pass.
func Duration(annotations map[string]string, name string) (d time.Duration, ok bool) {
	value, ok := annotations[name]
	if !ok {
		return 0, false
	}
	d, err := parseDuration(value)
	return d, err == nil
}

// TTL is what one of the annotations says that are TTLs; limited is false for Never. ok is as Duration's.
func TTL(annotations map[string]string, name string) (ttl time.Duration, limited, ok bool) {
	value, ok := annotations[name]
	if !ok {
		return 0, false, false
	}
	ttl, limited, err := parseTTL(value)
	return ttl, limited, err == nil
}
