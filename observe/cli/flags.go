package cli

import (
	"errors"
	"fmt"
	"math"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// defaultLast is how many flows are shown when nothing says how many.
const defaultLast = 20

// Flags are those of `hubble observe`. The same flag again means or, another flag
// means and; --not puts the flag that follows into what is left out. A flag for
// either side (--ip, --pod, --port, …) makes two filters, one for flows from there
// and one for flows to there; several such flags go by the same side, as in Hubble.
type Flags struct {
	Last, First  uint64
	All, Follow  bool
	Since, Until string

	Output     string
	TimeFormat string
	NodeName   bool
	Numeric    bool
	Color      string // auto, always, never

	filters filterFlags
	now     func() time.Time // nil: time.Now
}

// AddTo declares the flags.
func (f *Flags) AddTo(fs *pflag.FlagSet) {
	fs.Uint64Var(&f.Last, "last", 0, fmt.Sprintf("the last N flows (default %d)", defaultLast))
	fs.Uint64Var(&f.First, "first", 0, "the first N flows")
	fs.BoolVar(&f.All, "all", false, "all flows that are kept")
	fs.BoolVarP(&f.Follow, "follow", "f", false, "go on with flows as they come")
	fs.StringVar(&f.Since, "since", "", "flows since then: a duration (5m) or a time (2006-01-02T15:04:05Z)")
	fs.StringVar(&f.Until, "until", "", "flows until then: a duration (5m) or a time (2006-01-02T15:04:05Z)")
	fs.StringVarP(&f.Output, "output", "o", "compact", "compact, dict, json, jsonpb (the same) or table")
	fs.StringVar(&f.TimeFormat, "time-format", "StampMilli", timeFormats)
	fs.BoolVar(&f.NodeName, "print-node-name", false, "show the node of each flow")
	fs.BoolVar(&f.Numeric, "numeric", false, "addresses instead of names")
	fs.StringVar(&f.Color, "color", "auto", "auto, always or never")
	f.filters.addTo(fs)
}

// Request makes the request that the flags ask for.
func (f *Flags) Request() (*observerpb.GetFlowsRequest, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	req := &observerpb.GetFlowsRequest{
		Number: f.Last,
		First:  f.First > 0,
		Follow: f.Follow,
	}
	if req.First {
		req.Number = f.First
	}
	var err error
	if req.Since, err = f.timestamp("since", f.Since); err != nil {
		return nil, err
	}
	if req.Until, err = f.timestamp("until", f.Until); err != nil {
		return nil, err
	}
	switch {
	case f.All:
		req.Number = math.MaxUint64
	case req.Number == 0 && !f.Follow && req.Since == nil && req.Until == nil:
		req.Number = defaultLast
	}
	if req.Whitelist, err = f.filters.allow.filters(); err != nil {
		return nil, err
	}
	req.Blacklist, err = f.filters.deny.filters()
	return req, err
}

func (f *Flags) check() error {
	switch {
	case f.First > 0 && f.Last > 0:
		return errors.New("--first and --last exclude each other")
	case f.First > 0 && f.All:
		return errors.New("--first and --all exclude each other")
	case f.Last > 0 && f.All:
		return errors.New("--last and --all exclude each other")
	case f.First > 0 && f.Follow:
		return errors.New("--first and --follow exclude each other")
	case f.Follow && (f.Output == "table" || f.Output == "tab"):
		return errors.New("--output table cannot align columns with --follow; use compact")
	case f.filters.negate:
		return errors.New("--not must be followed by the filter to negate")
	}
	return nil
}

func (f *Flags) timestamp(flag, value string) (*timestamppb.Timestamp, error) {
	if value == "" {
		return nil, nil
	}
	now := time.Now
	if f.now != nil {
		now = f.now
	}
	t, err := parseTime(value, now())
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return timestamppb.New(t), nil
}

// Options are those of the printer that the flags ask for; terminal says whether
// colours are welcome if the user has no say.
func (f *Flags) Options(terminal bool) (Options, error) {
	o := Options{Format: f.Output, TimeFormat: f.TimeFormat, NodeName: f.NodeName, Numeric: f.Numeric}
	switch f.Color {
	case "auto", "":
		o.Color = terminal
	case "always":
		o.Color = true
	case "never":
	default:
		return o, fmt.Errorf("--color %q is not one of auto, always, never", f.Color)
	}
	return o, nil
}
