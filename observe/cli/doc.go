// Package cli is the client's side of the Observer API: it makes requests of the
// flags that people know from `hubble observe`, and prints what comes back in
// Hubble's formats, with headgate's explanations added.
package cli
