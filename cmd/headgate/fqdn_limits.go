package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/headgate/headgate/redirect"
)

// nameLimits bound what is kept of the names that endpoints ask for.
type nameLimits struct {
	minTTL, grace        time.Duration
	perName, perEndpoint int
}

func (l *nameLimits) addTo(fs *pflag.FlagSet) {
	fs.DurationVar(&l.minTTL, "fqdn-min-ttl", 10*time.Second, "how long the answer to a name counts at least, for toFQDNs")
	fs.DurationVar(&l.grace, "fqdn-grace", 10*time.Second, "how much longer an address stays allowed after its answer has run out, or its last connection has ended")
	fs.IntVar(&l.perName, "fqdn-max-addresses-per-name", 1000, "how many addresses of one name an endpoint may know")
	fs.IntVar(&l.perEndpoint, "fqdn-max-addresses-per-endpoint", redirect.NamesPerEndpoint, "how many addresses one endpoint may know by names, of the 1048576 there is room for")
}

func (l *nameLimits) limits() (redirect.NameLimits, error) {
	if l.minTTL < time.Second || l.grace < time.Second || l.perName < 1 || l.perEndpoint < 1 {
		return redirect.NameLimits{}, usagef("--fqdn-min-ttl and --fqdn-grace are at least 1s, the other --fqdn limits at least 1")
	}
	return redirect.NameLimits{MinTTL: l.minTTL, Grace: l.grace, PerName: l.perName, PerEndpoint: l.perEndpoint}, nil
}
