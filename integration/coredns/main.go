// Command coredns is CoreDNS with the few plugins that tests need, which is built in a
// fraction of the time that all of them take.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/dnssec"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
)

func main() { coremain.Run() }
