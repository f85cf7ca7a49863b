package main

import (
	"github.com/spf13/pflag"

	"github.com/headgate/headgate/xds"
)

// envoyFlags are settings of the agent about an Envoy that others run, and limits.
type envoyFlags struct {
	external     bool
	uid          uint32
	maxListeners int
}

func (f *envoyFlags) addTo(fs *pflag.FlagSet) {
	fs.BoolVar(&f.external, "envoy-external", false, "wait for an Envoy that somebody else runs, instead of starting one; 'headgate xds bootstrap' prints what it starts with")
	fs.Uint32Var(&f.uid, "envoy-uid", 0, "user that the Envoy of --envoy-external runs as, who may connect besides root")
	fs.IntVar(&f.maxListeners, "envoy-max-listeners", xds.DefaultMaxRoutes, "how many listeners Envoy may need: a policy that asks for more is refused")
}

func (f *envoyFlags) check(backend string) error {
	switch {
	case f.maxListeners < 1:
		return usagef("--envoy-max-listeners %d: write at least 1", f.maxListeners)
	case backend == "envoy":
	case f.external:
		return usagef("--envoy-external goes with --backend envoy only")
	}
	if f.uid != 0 && !f.external {
		return usagef("--envoy-uid goes with --envoy-external only; the user of an Envoy that the agent starts is --proxy-uid")
	}
	return nil
}

// settle makes a configuration that of these flags.
func (f *envoyFlags) settle(c *xds.Config) {
	c.MaxRoutes = f.maxListeners
	if f.external {
		c.Path, c.UID = "", f.uid
	}
}
