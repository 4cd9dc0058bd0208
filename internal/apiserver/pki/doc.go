// Package pki makes, keeps and renews the certificates and keys of one errand:
// a certificate authority, the API server's serving certificate, the
// administrator's client certificate and the key that signs service account
// tokens.
//
// Everything is ECDSA P-256 and stands as PEM files in one directory, readable
// by the owner alone. The authority and the token key are made once and kept;
// leaf certificates are renewed before they end, also while the process runs.
// Who is let in by a certificate is decided elsewhere.
package pki
