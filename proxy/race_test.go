//go:build race

package proxy

// raced: memory is not what it is otherwise.
const raced = true
