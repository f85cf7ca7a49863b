// Package manifest reads the documents that policies come in: it splits files,
// keeps the place of every value for messages, and reads what all kinds share,
// as metadata, selectors and address ranges.
//
// It reads strictly: a field or a value that it does not understand is an error
// that names the place and what to write instead.
package manifest
