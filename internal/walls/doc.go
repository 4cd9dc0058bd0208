// Package walls holds the house's walls: which package may lean on which. It
// has no code of its own; its test reads the imports.
package walls
