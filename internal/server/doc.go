// Package server is errand's composition root: it names every component, gives
// each what it needs, starts them in order and stops them in reverse. It is the
// only package that knows them all, and it has no logic of its own.
package server
