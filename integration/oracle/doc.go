// Package oracle holds headgate's decisions against those of Cilium's own policy
// engine, over random policies of the kinds that both know. It is a module of its
// own, so that headgate does not depend on that engine.
package oracle
