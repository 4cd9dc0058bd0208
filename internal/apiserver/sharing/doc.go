// Package sharing lets the objects that a watch cache holds share what they have
// in common. The cache keeps an object's last versions for those who watch, and
// they differ in a few fields; a Job's pods differ in little more than their
// names. Decoded one by one, each has all of it.
//
// An object in the watch cache belongs to all who read it, and nobody may change
// it: that is what makes sharing safe, and the reason why only what goes into
// the cache, or is listed, is shared, never what is decoded for an update.
package sharing
