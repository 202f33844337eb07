// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Errors that a change is refused with. They keep their identity across the
// daemon's socket (see package api), so that each program can word them.
var (
	ErrServiceExists = errors.New("the service exists already")
	ErrNoService     = errors.New("there is no such service")
	ErrServerExists  = errors.New("the real server exists already")
	ErrNoServer      = errors.New("there is no such real server")
	ErrNoScheduler   = errors.New("there is no such scheduler")
	ErrInvalid       = errors.New("not possible")
	ErrUnsupported   = errors.New("not in this version")
	ErrFull          = errors.New("the tables are full")

	// ErrGeneration is returned when the tables are not those that the change was
	// made for: somebody changed them meanwhile.
	ErrGeneration = errors.New("the tables were changed meanwhile")
	// ErrUnconfirmed is returned while an apply waits to be confirmed.
	ErrUnconfirmed = errors.New("an apply waits to be confirmed")
	// ErrNothingWaits is returned by a confirmation when no apply waits for one.
	ErrNothingWaits = errors.New("no apply waits to be confirmed")
	// ErrEmptied is returned when a change would leave a service without real
	// servers, or the director without services, and nobody said that it may.
	ErrEmptied = errors.New("that has to be allowed")
	// ErrNoRevision is returned when there is no such revision to go back to.
	ErrNoRevision = errors.New("there is no such revision")
)

// Operation is what a Change does. The words are ipvsadm's long options.
type Operation string

// The operations.
const (
	AddService    Operation = "add-service"
	EditService   Operation = "edit-service" // replaces what a service has besides its real servers
	DeleteService Operation = "delete-service"
	AddServer     Operation = "add-server" // at the front of the scheduling order
	EditServer    Operation = "edit-server"
	DeleteServer  Operation = "delete-server"
	Clear         Operation = "clear" // deletes all services
	Zero          Operation = "zero"  // sets statistics to 0, of all services if none is named
	SetTimeouts   Operation = "set"   // 0 leaves a timeout as it is
)

// Change is one step from a table to the next.
type Change struct {
	Operation Operation `json:"operation"`
	// Service is the service meant; zero for Clear, SetTimeouts and a Zero of all.
	Service ServiceKey `json:"service,omitzero"`
	// Scheduler is for AddService and EditService.
	Scheduler Scheduler `json:"scheduler,omitempty"`
	// Flags are for AddService and EditService.
	Flags SchedulerFlags `json:"scheduler_flags,omitempty"`
	// RealServer is for AddServer and EditServer; DeleteServer needs its Address.
	RealServer RealServer `json:"real_server,omitzero"`
	// Timeouts is for SetTimeouts.
	Timeouts Timeouts `json:"timeouts,omitzero"`
}

// UnmarshalJSON reads a change. Fields that it does not know are an error, and so is a
// real server that is added or edited without its weight: 0, which Go would take,
// drains it.
func (c *Change) UnmarshalJSON(text []byte) error {
	type plain Change // without this method
	fields := json.NewDecoder(bytes.NewReader(text))
	fields.DisallowUnknownFields()
	if err := fields.Decode((*plain)(c)); err != nil {
		return err
	}
	var said struct {
		RealServer struct {
			Weight *uint32 `json:"weight"`
		} `json:"real_server"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return err
	}
	if (c.Operation == AddServer || c.Operation == EditServer) && said.RealServer.Weight == nil {
		return fmt.Errorf("%s: real_server has no weight", c.Operation)
	}
	return nil
}

// String returns for instance "add-server tcp 192.0.2.1:80 10.0.0.5:80".
func (c Change) String() string {
	words := string(c.Operation)
	if c.Service != (ServiceKey{}) {
		words += " " + c.Service.String()
	}
	if c.RealServer.Address.IsValid() {
		words += " " + c.RealServer.Address.String()
	}
	return words
}

// Request says who asks for a change, and under which conditions.
type Request struct {
	Who  string // for the audit log, for instance "root (uid 0, pid 4711)"
	What string // for the audit log, for instance "apply /etc/lvx/lvx.yaml"
	// Generation of the tables that the change is for; 0 is any. With another one
	// nothing is changed: ErrGeneration.
	Generation uint64
	// Wait is how long to wait, after the change, for the next hops of new real servers.
	Wait time.Duration
	// KeepGoing makes every change that can be made, where else one that cannot
	// refuses all. For Apply.
	KeepGoing bool
	// AllowEmpty lets a configuration take the last real server of a service, or
	// the last service. For Configure.
	AllowEmpty bool
	// Confirm is how long the change waits to be confirmed before it goes back by
	// itself; 0 needs no confirmation. For Configure.
	Confirm time.Duration
	// DryRun changes nothing: Applied.Plan says what would be done. For Apply.
	DryRun bool
	// Progress is called after every step, if it is not nil.
	Progress func(Progress)
}
