// Package observe tells what happened. Sources (the datapath, a proxy) hand in a
// Record of each event; it becomes Hubble's Flow, so that every tool that knows
// Hubble knows headgate: the hubble CLI, its user interface, its relay.
//
//	Record ─▶ Builder ─▶ Ring ─▶ Server (Observer API) ─▶ hubble, headgate observe
//	  Sink ties them     └─▶ Metrics
//
// Records may come encoded (Batch): then a Digest of each says what must be known at once,
// which is counted, and the rest is decoded when somebody looks.
//
// A Flow never changes once it is in the Ring, so readers share it without locks.
// The Ring never waits: a reader that is too slow loses flows and is told how many.
//
// What comes from the wire is hostile. The Builder makes it valid UTF-8, cuts it to
// a length, hides credentials and escapes what a terminal would act on where a
// client prints it as it is (Summary).
//
// What Hubble has no field for (the deciding rule, the one that came nearest, the
// reason in words) travels in Flow.extensions as a google.protobuf.Struct with the
// keys of Explanation.
package observe
