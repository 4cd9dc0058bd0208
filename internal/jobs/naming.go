package jobs

import (
	"crypto/sha256"
	"encoding/binary"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage/names"
)

const (
	// suffixLetters are those that the API server itself makes names of: no vowels, so that no words come out.
	suffixLetters = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength  = 5
	// suffixes is the number of different suffixes: 27⁵ = 3¹⁵.
	suffixes = 14348907
)

// podNames is the sequence of names that a Job gives to its pods. They look like those that the API server generates, but the n-th is the same
// whenever and wherever it is computed, and no two of the first 14 million are equal.
type podNames struct {
	prefix        string
	start, stride uint64
}

// namesFor returns the names of the pods of the Job with that name and UID.
func namesFor(jobName string, uid types.UID) podNames {
	sum := sha256.Sum256([]byte(uid))
	// A stride that three doesn't divide visits each suffix once.
	stride := binary.BigEndian.Uint64(sum[8:16]) % suffixes
	if stride%3 == 0 {
		stride++
	}
	return podNames{
		prefix: generateName(jobName),
		start:  binary.BigEndian.Uint64(sum[:8]) % suffixes,
		stride: stride,
	}
}

// at returns the name of the slot-th pod.
func (n podNames) at(slot int64) string {
	v := (n.start + uint64(slot)%suffixes*n.stride) % suffixes
	var suffix [suffixLength]byte
	for i := range suffix {
		suffix[i] = suffixLetters[v%uint64(len(suffixLetters))]
		v /= uint64(len(suffixLetters))
	}
	return n.prefix[:min(len(n.prefix), names.MaxGeneratedNameLength)] + string(suffix[:])
}

// generateName is what pods of the Job carry as metadata.generateName.
func generateName(jobName string) string { return jobName + "-" }
