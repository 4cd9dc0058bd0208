package jobs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
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
//
// Each index of an Indexed Job has a sequence of its own.
type podNames struct {
	job     string
	uid     types.UID
	indexed bool
}

// namesFor returns the names of the Job's pods.
func namesFor(job *batchv1.Job) podNames { return podNames{job.Name, job.UID, isIndexed(job)} }

// at returns the name of the pod in that slot.
func (n podNames) at(slot int64) string {
	if n.indexed {
		index := indexOfSlot(slot)
		seed := fmt.Sprintf("%s/%d", n.uid, index)
		return indexedPrefix(n.job, index) + suffixAt(seed, attemptOfSlot(slot))
	}
	prefix := generateName(n.job)
	return prefix[:min(len(prefix), names.MaxGeneratedNameLength)] + suffixAt(string(n.uid), slot)
}

// suffixAt returns the n-th suffix of the sequence that belongs to the seed.
func suffixAt[T int32 | int64](seed string, n T) string {
	sum := sha256.Sum256([]byte(seed))
	start, stride := binary.BigEndian.Uint64(sum[:8])%suffixes, binary.BigEndian.Uint64(sum[8:16])%suffixes
	if stride%3 == 0 {
		stride++ // one that three doesn't divide visits each suffix once
	}
	v := (start + uint64(n)%suffixes*stride) % suffixes
	var suffix [suffixLength]byte
	for i := range suffix {
		suffix[i] = suffixLetters[v%uint64(len(suffixLetters))]
		v /= uint64(len(suffixLetters))
	}
	return string(suffix[:])
}

// generateName is what pods of the Job carry as metadata.generateName.
func generateName(jobName string) string { return jobName + "-" }
