// Package kafka reads Kafka connections as a parsers.Session: requests are judged
// by what they are about, and go on as they are, divided, or not at all.
//
// # Layouts first
//
// schema.txt says how each version of each message looks. It is made from Kafka's
// own definitions (schema/generate.go) and marks the fields that name topics,
// groups and transactional ids. A message is first scanned by its layout: every
// length, count and tag is checked against what was sent, nothing may be left
// over, and the named things are found with the list elements that hold them.
// Only what passed is handed to kmsg, which trusts lengths and counts. So each API
// is judged, divided and filtered by the same code (items.go, client.go, server.go)
// and new ones take a new schema.txt.
//
// # Judged by item
//
// A request is judged once for each topic, with the group and transactional id that
// it stands in, and if it names none, once for each of those. What is denied is cut
// out of the request, and the entries with its errors are put into the list of the
// server's answer, in front, so that answers need not be held. Where an answer has
// no such list, all is denied. Denials mirror requests, by the names of fields
// (denial.go); a test decodes them for every version.
//
// # What is not parsed
//
// Of a Produce request for one topic, all behind the topic; of answers, all but what
// must be known or changed: Metadata, ApiVersions, CreateTopics, and those to
// requests that were divided, up to their list.
//
// # State
//
// A session remembers requests without an answer, in order, because answers carry
// nothing but a correlation id; fetch and share sessions, because later requests
// leave out what did not change; and nothing of a size that a peer could choose:
// see the bounds in session.go. Names of topic ids are shared by the connections to
// a server (topics.go).
package kafka
