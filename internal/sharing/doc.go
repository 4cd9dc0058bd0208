// Package sharing lets objects that a cache holds share what they have in
// common. An object's versions differ in a few fields, a Job's pods in little
// more than their names; decoded one by one, each has all of it.
//
// An object in a cache belongs to all who read it, and nobody may change it: that
// is what makes sharing safe, and the reason why only what goes into a cache is
// shared, never what is decoded to be changed.
package sharing
