// SPDX-License-Identifier: Apache-2.0

package lvs

import "errors"

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
	// RealServer is for AddServer and EditServer; DeleteServer needs its Address.
	RealServer RealServer `json:"real_server,omitzero"`
	// Timeouts is for SetTimeouts.
	Timeouts Timeouts `json:"timeouts,omitzero"`
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
