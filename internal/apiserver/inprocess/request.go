package inprocess

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/klog/v2"
)

// maxRetries is how often client-go's REST client repeats a request that the server asks it to repeat.
const maxRetries = 10

// call names one request as the HTTP path would route it.
type call struct {
	verb      string // as in RBAC: create, update, patch ...
	method    string // as in HTTP: POST, PUT, PATCH ...
	namespace string
	name      string        // "" for a collection, and for a create at one
	timeout   time.Duration // 0 for none
}

// do runs op as a request. It returns what the typed client would: nil, the server's answer as *apierrors.StatusError, or an error that wraps
// ctx.Err(). Like client-go it repeats a request that the server refuses only for now (the watch cache isn't ready, for example).
func (e *endpoint) do(ctx context.Context, c call, op func(ctx context.Context) error) error {
	for retries := 0; ; retries++ {
		err := e.inTurn(ctx, c, op)
		delay, ok := retryAfter(err)
		if !ok || retries == maxRetries {
			return err
		}
		timer := e.Clock.NewTimer(delay)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s %s: %w - error from a previous attempt: %w", c.verb, e.path(c), ctx.Err(), err)
		}
	}
}

// retryAfter returns when the server wants the request again. Client-go honours that for 429 and 5xx only.
func retryAfter(err error) (time.Duration, bool) {
	if err == nil {
		return 0, false
	}
	status, ok := err.(*apierrors.StatusError)
	if !ok || status.ErrStatus.Details == nil || status.ErrStatus.Details.RetryAfterSeconds <= 0 {
		return 0, false
	}
	code := status.ErrStatus.Code
	if code != http.StatusTooManyRequests && code < http.StatusInternalServerError {
		return 0, false
	}
	return time.Duration(status.ErrStatus.Details.RetryAfterSeconds) * time.Second, true
}

// inTurn makes one attempt, once as few writes are in progress as there may be.
func (e *endpoint) inTurn(ctx context.Context, c call, op func(ctx context.Context) error) error {
	if e.turns == nil || c.method == http.MethodGet {
		return e.attempt(ctx, c, op)
	}
	select {
	case e.turns <- struct{}{}:
		defer func() { <-e.turns }()
		return e.attempt(ctx, c, op)
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", c.verb, e.path(c), ctx.Err())
	}
}

func (e *endpoint) attempt(ctx context.Context, c call, op func(ctx context.Context) error) (err error) {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", c.verb, e.path(c), err)
	}
	reqCtx := e.requestContext(ctx, c)
	if c.timeout > 0 {
		var cancel context.CancelFunc
		reqCtx, cancel = context.WithTimeout(reqCtx, c.timeout)
		defer cancel()
	}
	defer func() {
		if r := recover(); r != nil {
			err = e.panicked(ctx, c, r)
		}
	}()
	if err := op(reqCtx); err != nil {
		return e.asClientError(ctx, reqCtx, c, err)
	}
	return nil
}

// requestContext adds what the HTTP path's filters would have: the registries and admission plugins read it.
func (e *endpoint) requestContext(ctx context.Context, c call) context.Context {
	if audit.AuditContextFrom(ctx) != nil {
		// An admission plugin's own request isn't part of the one it admits.
		ctx = audit.WithAuditContext(ctx)
	}
	ctx = warning.WithWarningRecorder(ctx, e.warnings())
	ctx = request.WithRequestInfo(ctx, e.requestInfo(c))
	ctx = request.WithUser(ctx, e.User)
	return request.WithNamespace(ctx, c.namespace)
}

func (e *endpoint) requestInfo(c call) *request.RequestInfo {
	info := &request.RequestInfo{
		IsResourceRequest: true,
		Path:              e.path(c),
		Verb:              c.verb,
		APIPrefix:         "apis",
		APIGroup:          e.resource.Group,
		APIVersion:        e.resource.Version,
		Namespace:         c.namespace,
		Resource:          e.resource.Resource,
		Subresource:       e.subresource,
		Name:              c.name,
		Parts:             []string{e.resource.Resource},
	}
	if e.resource.Group == "" {
		info.APIPrefix = "api"
	}
	if c.name != "" {
		info.Parts = append(info.Parts, c.name)
	}
	if e.subresource != "" {
		info.Parts = append(info.Parts, e.subresource)
	}
	return info
}

// path is the request's URL path on the server.
func (e *endpoint) path(c call) string {
	p := "/apis/" + e.resource.Group + "/" + e.resource.Version
	if e.resource.Group == "" {
		p = "/api/" + e.resource.Version
	}
	if e.namespaced && c.namespace != "" {
		p += "/namespaces/" + c.namespace
	}
	p += "/" + e.resource.Resource
	if c.name != "" {
		p += "/" + c.name
	}
	if e.subresource != "" {
		p += "/" + e.subresource
	}
	return p
}

// asClientError turns a registry's error into the one that the typed client would have decoded from the server's answer.
func (e *endpoint) asClientError(callerCtx, reqCtx context.Context, c call, err error) error {
	if reqCtx.Err() != nil && !definite(err) {
		if callerErr := callerCtx.Err(); callerErr != nil {
			return fmt.Errorf("%s %s: %w", c.verb, e.path(c), callerErr)
		}
		err = apierrors.NewTimeoutError(fmt.Sprintf("request did not complete within requested timeout - %s", reqCtx.Err()), 0)
	}
	status := responsewriters.ErrorToAPIStatus(err)
	status.TypeMeta = metav1.TypeMeta{} // as client-go's decoders leave it
	return apierrors.FromObject(status)
}

// definite tells a decision about the request (forbidden, conflict ...) from a failure that the end of its context may have caused.
func definite(err error) bool {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonUnknown, metav1.StatusReasonInternalError, metav1.StatusReasonTimeout, metav1.StatusReasonServerTimeout:
		return false
	}
	return true
}

// panicked is the answer to a request whose handling panicked. The stack goes to the log, since the caller can do nothing with it.
func (e *endpoint) panicked(ctx context.Context, c call, reason any) error {
	klog.FromContext(ctx).Error(nil, "Request panicked", "verb", c.verb, "path", e.path(c), "reason", reason, "stack", string(debug.Stack()))
	return apierrors.NewGenericServerResponse(http.StatusInternalServerError, c.method, e.resource.GroupResource(), c.name,
		"This request caused apiserver to panic. Look in the logs for details.", 0, true)
}

func (e *endpoint) warnings() warning.Recorder {
	if e.Warnings == nil {
		return droppedWarnings{}
	}
	return e.Warnings
}

// droppedWarnings also hides the recorder of an enclosing request, whose client has nothing to do with this one.
type droppedWarnings struct{}

func (droppedWarnings) AddWarning(string, string) {}
