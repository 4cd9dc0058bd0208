package launch

import "testing"

func TestSup(t *testing.T) {
	if err := Supported(); err != nil {
		t.Error(err)
	}
}
