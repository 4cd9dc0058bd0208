//go:build e2e && slow

package e2e

import "testing"

// Three hundred kills, or as many as -kills says, at twenty pods a second, or
// what the machine does.
func TestSlowKillAnything(t *testing.T) {
	campaign(t, *campaignKills, *campaignRate)
}
