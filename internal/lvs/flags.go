// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// SchedulerFlags are a scheduler's flags as ipvsadm prints them: names with
// commas between, in the kernel's order, each once; "" is none. Make one with
// ParseSchedulerFlags. JSON has them as an array of names.
//
// sh and mh know "sh-fallback" and "mh-fallback" (a connection whose real server
// has weight 0 gets another), "sh-port" and "mh-port" (the client's port counts as
// well as its address); every scheduler takes "flag-1" to "flag-3", of which the
// kernel gives sh and mh the first two under those names.
type SchedulerFlags string

// The bits of kernel IPVS (IP_VS_SVC_F_SCHED1 to 3) are in this order.
func flagNames(s Scheduler) []string {
	if s == SH || s == MH {
		return []string{string(s) + "-fallback", string(s) + "-port", "flag-3"}
	}
	return []string{"flag-1", "flag-2", "flag-3"}
}

// ParseSchedulerFlags returns the flags with these names for the scheduler. For sh
// and mh flag-1 and flag-2 are other names of -fallback and -port.
//
// Returns ErrInvalid if the scheduler has no such flag.
func ParseSchedulerFlags(s Scheduler, names []string) (SchedulerFlags, error) {
	known := flagNames(s)
	var set [3]bool
	for _, name := range names {
		at := slices.Index(known, name)
		if at < 0 {
			at = slices.Index([]string{"flag-1", "flag-2", "flag-3"}, name)
		}
		if at < 0 {
			return "", fmt.Errorf("scheduler %s has no flag %q, only %s: %w", s, name, strings.Join(known, ", "), ErrInvalid)
		}
		set[at] = true
	}
	var list []string
	for i, name := range known {
		if set[i] {
			list = append(list, name)
		}
	}
	return SchedulerFlags(strings.Join(list, ",")), nil
}

// Names returns the flags one by one; never nil.
func (f SchedulerFlags) Names() []string {
	if f == "" {
		return []string{}
	}
	return strings.Split(string(f), ",")
}

func (f SchedulerFlags) has(name string) bool { return slices.Contains(f.Names(), name) }

// Fallback tells whether a connection whose real server cannot be used gets another.
func (f SchedulerFlags) Fallback() bool { return f.has("sh-fallback") || f.has("mh-fallback") }

// Port tells whether the client's port counts as well as its address.
func (f SchedulerFlags) Port() bool { return f.has("sh-port") || f.has("mh-port") }

// MarshalJSON writes an array of names.
func (f SchedulerFlags) MarshalJSON() ([]byte, error) { return json.Marshal(f.Names()) }

// UnmarshalJSON reads an array of names. Validate tells whether the scheduler has them.
func (f *SchedulerFlags) UnmarshalJSON(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return fmt.Errorf("scheduler flags are not an array of names: %w", err)
	}
	*f = SchedulerFlags(strings.Join(names, ","))
	return nil
}
