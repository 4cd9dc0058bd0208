package podtrace

import (
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"strings"
)

// Identity says which pod it is, and which Job's, if it is one's.
type Identity struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	JobName   string `json:"jobName,omitempty"`
	JobUID    string `json:"jobUID,omitempty"`
}

// TraceID is the ID of the trace of an object: its UID.
func TraceID(uid string) [16]byte {
	var id [16]byte
	if n, err := hex.Decode(id[:], []byte(strings.ReplaceAll(uid, "-", ""))); err == nil && n == len(id) && id != [16]byte{} {
		return id
	}
	h := fnv.New128a() // not a UUID: an API server of other habits
	_, _ = h.Write([]byte(uid))
	h.Sum(id[:0])
	return id
}

// RootSpan is the ID of the span that is the object as a whole: the first half of
// its trace's.
func RootSpan(uid string) uint64 {
	id := TraceID(uid)
	return binary.BigEndian.Uint64(id[:8])
}
