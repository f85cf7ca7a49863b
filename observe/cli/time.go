package cli

import (
	"fmt"
	"strings"
	"time"
)

// Layouts of --since, --until and --time-format that package time has no name for.
const (
	layoutDay    = "2006-01-02"
	layoutHour   = "2006-01-02T15Z07:00"
	layoutMinute = "2006-01-02T15:04Z07:00"
	layoutMilli  = "2006-01-02T15:04:05.999Z07:00"
	layoutMicro  = "2006-01-02T15:04:05.999999Z07:00"
)

// timeFormats are the names that --time-format takes.
const timeFormats = "StampMilli, YearMonthDay, YearMonthDayHour, YearMonthDayHourMinute, RFC3339, RFC3339Milli, RFC3339Micro, RFC3339Nano, RFC1123Z"

// layout of a name of timeFormats, in any case.
func layout(name string) (string, error) {
	switch strings.ToLower(name) {
	case "", "stampmilli":
		return time.StampMilli, nil
	case "yearmonthday":
		return layoutDay, nil
	case "yearmonthdayhour":
		return layoutHour, nil
	case "yearmonthdayhourminute":
		return layoutMinute, nil
	case "rfc3339":
		return time.RFC3339, nil
	case "rfc3339milli":
		return layoutMilli, nil
	case "rfc3339micro":
		return layoutMicro, nil
	case "rfc3339nano":
		return time.RFC3339Nano, nil
	case "rfc1123z":
		return time.RFC1123Z, nil
	}
	return "", fmt.Errorf("time format %q is not one of %s", name, timeFormats)
}

// parseTime takes a duration ("5m", that long ago) or a date.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, l := range []string{layoutDay, layoutHour, layoutMinute, time.RFC3339Nano, time.RFC1123Z} {
		if t, err := time.Parse(l, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a duration like 5m nor a time like 2006-01-02T15:04:05Z", s)
}
