package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"

	"errand.dev/errand/internal/podtrace"
)

// ErrNotRunning says that no errand serve answers on the socket.
var ErrNotRunning = errors.New("errand serve is not running")

// Client is the Images and Traces of a running errand serve.
type Client struct {
	http *http.Client
	dial func(context.Context) (net.Conn, error)
}

var (
	_ Images = (*Client)(nil)
	_ Traces = (*Client)(nil)
)

// NewClient makes a client for the socket in runtimeDir. Its methods return an
// error that wraps ErrNotRunning where nobody answers there.
func NewClient(runtimeDir string) *Client {
	path := filepath.Join(runtimeDir, socketName)
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, ErrNotRunning
		}
		return conn, err
	}
	return &Client{dial: dial, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}
}

// Reach returns nil where somebody answers on the socket.
func (c *Client) Reach(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// List implements Images.
func (c *Client) List(ctx context.Context) ([]Image, error) {
	return c.call(ctx, http.MethodGet, "/images", nil, nil)
}

// Pull implements Images.
func (c *Client) Pull(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	images, err := c.call(ctx, http.MethodPost, "/images/pull?ref="+url.QueryEscape(ref), nil, progress)
	if err != nil {
		return Image{}, err
	}
	if len(images) != 1 {
		return Image{}, fmt.Errorf("errand serve answered with %d images for one", len(images))
	}
	return images[0], nil
}

// Load implements Images.
func (c *Client) Load(ctx context.Context, archive io.Reader, progress func(Progress)) ([]Image, error) {
	return c.call(ctx, http.MethodPost, "/images/load", archive, progress)
}

// Remove implements Images.
func (c *Client) Remove(ctx context.Context, ref string) error {
	_, err := c.call(ctx, http.MethodPost, "/images/remove?ref="+url.QueryEscape(ref), nil, nil)
	return err
}

// Trace implements Traces.
func (c *Client) Trace(ctx context.Context, namespace, name string) (*podtrace.Trace, error) {
	resp, err := c.do(ctx, http.MethodGet, "/traces/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s/%s", ErrNoTrace, namespace, name)
	default:
		return nil, refusal(resp)
	}
	t := &podtrace.Trace{}
	if err := json.NewDecoder(resp.Body).Decode(t); err != nil {
		return nil, fmt.Errorf("errand serve went away in the middle of its answer: %w", err)
	}
	return t, nil
}

// do sends a request and returns the answer, whose body the caller closes.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://errand"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the made-up URL tells the user nothing
		}
		return nil, err
	}
	return resp, nil
}

// refusal is what an answer says that is none of those expected.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return fmt.Errorf("errand serve answered %s: %s", resp.Status, b)
}

func (c *Client) call(ctx context.Context, method, path string, body io.Reader, progress func(Progress)) ([]Image, error) {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	for d := json.NewDecoder(resp.Body); ; {
		var e event
		switch err := d.Decode(&e); {
		case err != nil:
			return nil, fmt.Errorf("errand serve went away in the middle of its answer: %w", err)
		case e.Error != "":
			return nil, errors.New(e.Error)
		case e.Done:
			return e.Images, nil
		case progress != nil && e.Progress != nil:
			progress(*e.Progress)
		}
	}
}
