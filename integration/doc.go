// Package integration holds tests of headgate as a whole. They start the real
// binary in throwaway network namespaces, connect workloads with real servers and
// clients to it, and judge by what arrives and by what headgate says of it.
//
// They need root and a kernel that 'headgate check' accepts. Without, they are
// skipped; where the environment variable CI is set they fail instead. The tests
// of the import rule and of generated files need neither.
package integration
