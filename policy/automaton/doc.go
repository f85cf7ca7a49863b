// Package automaton tells which of many regular expressions match a value, the
// whole value, in one pass over it. Its answers are those of package regexp for
// `\A(?:expression)\z`, for any bytes, valid UTF-8 or not.
//
// How it works:
//
//   - Expressions (or top-level alternatives of one) that are a plain text are not
//     run at all: they wait in a hash table.
//   - The others are put into one trie of their parts, so that expressions with a
//     common beginning are one thing until they differ. The edges of the trie are
//     single characters or whole programs of regexp/syntax; the trie becomes one
//     nondeterministic automaton whose ends carry the number of an expression.
//   - Characters that no expression tells apart are one class. The automaton reads
//     classes of characters, not bytes: an invalid byte is U+FFFD, as in regexp.
//   - Of this automaton a deterministic one is built as values come by, one state
//     at a time, and kept. A state is a set of instructions and, if one of them is
//     an assertion such as \b, what kind of character came before it. Assertions
//     are decided when the next character is known, so that all of them are exact
//     and none needs another engine.
//   - The states kept have a limit in bytes. What does not fit is simulated, which
//     is slower, linear in the value and gives the same answer. Because strangers
//     choose the values and so the states, a full cache is not for ever: when as
//     much was simulated as it costs to fill it, it starts again from nothing.
//
// A Set may be used from many goroutines. Reading kept states takes no lock and no
// memory: states are published with atomic pointers and never change.
//
// There is one known difference: an expression that names half a surrogate pair,
// such as \x{D800}, matches nothing here, for no text has that character. Package
// regexp lets it match U+FFFD at the beginning of an expression.
package automaton
