package shimapi

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the largest payload of a frame in bytes. The largest message in practice is the exec of a process with a
// full environment (ARG_MAX is 2 MiB on Linux by default), which is in there twice.
const MaxFrame = 8 << 20

const headerLen = 4

// ErrFrame says that the peer doesn't speak this protocol: a length out of range, or a payload that isn't the JSON expected.
var ErrFrame = errors.New("malformed frame")

// AppendFrame appends the frame of v to dst. Errors: ErrFrame if v is larger than MaxFrame, or v's own marshalling error.
func AppendFrame(dst []byte, v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("encode %T: %w", v, err)
	}
	if len(payload) > MaxFrame {
		return dst, fmt.Errorf("%w: %T of %d bytes, the limit is %d", ErrFrame, v, len(payload), MaxFrame)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...), nil
}

// ReadFrame reads one frame's payload. It reads no byte beyond it, so that descriptors can't be attributed to the wrong
// frame. Errors: io.EOF if r ends before the first byte, io.ErrUnexpectedEOF if it ends later, ErrFrame, or r's own.
func ReadFrame(r io.Reader) ([]byte, error) {
	var header [headerLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n == 0 || n > MaxFrame {
		return nil, fmt.Errorf("%w: length %d is not in 1..%d", ErrFrame, n, MaxFrame)
	}
	return readPayload(r, int(n))
}

// readPayload grows its buffer with what arrives: a peer can't make us allocate 4 MiB by sending four bytes.
func readPayload(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	buf := make([]byte, 0, min(n, step))
	for len(buf) < n {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		part := buf[len(buf):min(cap(buf), n)]
		m, err := io.ReadFull(r, part)
		buf = buf[:len(buf)+m]
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// Decode decodes a frame's payload or a message's body into v. Unknown fields are ignored (see Versions). Errors: ErrFrame.
func Decode(payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return nil
}
