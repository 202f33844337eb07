// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lvx/internal/config/yaml"
	"lvx/internal/lvs"
)

// decoder makes the configuration of values that were checked against their
// shapes, and notes what is wrong with them together.
type decoder struct {
	*source
	configuration lvs.Configuration
	services      []*service
}

// service is a virtual service with the places of its parts.
type service struct {
	lvs.Service
	method  lvs.Method // default of its real servers
	whole   bool       // nothing of it is missing or wrong
	unsure  bool       // of a real server it is not known which method it has
	node    *yaml.Node
	address *yaml.Node // nil if there is no right one
	servers []server   // as Service.RealServers
}

func (d *decoder) file(root *yaml.Node) {
	d.settings(root)
	list := get(root, "services")
	if list != nil && list.Kind == yaml.Sequence {
		d.configuration.Services = make([]lvs.Service, 0, len(list.Items))
		for i := range list.Items {
			if list.Items[i].Kind == yaml.Mapping {
				d.services = append(d.services, d.service(&list.Items[i]))
			}
		}
		if len(list.Items) == 0 && !list.Incomplete {
			d.warn(codeNoServices, list.Span, "the file has no services: all that there are will be removed", "")
		}
	}
	d.sameServices()
	for _, s := range d.services {
		d.configuration.Services = append(d.configuration.Services, s.Service)
	}
	d.warnings(root)
}

func (d *decoder) settings(root *yaml.Node) {
	c := &d.configuration.Settings
	director := get(root, "director")
	if list := get(director, "interfaces"); list != nil {
		for i := range list.Items {
			c.Interfaces = append(c.Interfaces, list.Items[i].Text)
		}
	}
	c.XDP = textOf(get(director, "xdp"))
	capacity := get(director, "capacity")
	c.Capacity = lvs.Capacity{
		Connections: numberOf(get(capacity, "connections"), 0),
		Services:    numberOf(get(capacity, "services"), 0),
		RealServers: numberOf(get(capacity, "real_servers"), 0),
	}
	c.MHTable = d.mhTable(get(director, "mh_table"))
	timeouts := get(director, "timeouts")
	d.configuration.Timeouts = lvs.Timeouts{
		TCP:    durationOf(get(timeouts, "tcp")),
		TCPFin: durationOf(get(timeouts, "tcp_fin")),
		UDP:    durationOf(get(timeouts, "udp")),
	}
	d.api(get(root, "api"))
	metrics := get(root, "metrics")
	c.Metrics.Listen = d.listen(get(metrics, "listen"))
	c.Metrics.NodeIPVS = textOf(get(metrics, "node_ipvs")) == "true"
}

func (d *decoder) api(api *yaml.Node) {
	c := &d.configuration.Settings.API
	listen, tls := get(api, "listen"), get(api, "tls")
	c.Listen = d.listen(listen)
	c.TLS = lvs.TLSSettings{Cert: textOf(get(tls, "cert")), Key: textOf(get(tls, "key")), ClientCA: textOf(get(tls, "client_ca"))}
	var missing []string
	for _, key := range []string{"cert", "key", "client_ca"} {
		node := get(tls, key)
		there := node != nil && node.Text != ""
		switch {
		case there && textOf(listen) == "" && !isBroken(api, "listen"):
			d.warn(codeIdleTLS, node.Span, fmt.Sprintf("api.tls.%s does nothing without api.listen", key), "")
		case c.Listen == "" || there:
			continue
		case node != nil:
			d.fail(codeTLS, node.Span, fmt.Sprintf("api.listen needs api.tls.%s", key), tlsHelp)
		case !isBroken(api, "tls") && !isBroken(tls, key):
			missing = append(missing, "api.tls."+key)
		}
	}
	if len(missing) > 0 {
		d.fail(codeTLS, listen.Span, "api.listen needs "+strings.Join(missing, ", "), tlsHelp)
	}
}

const tlsHelp = "name the PEM files: the API is not served without certificates on both sides"

// listen reads an address to listen on; "" is none.
func (d *decoder) listen(n *yaml.Node) string {
	if n == nil || n.Text == "" {
		return ""
	}
	a, fault := parseListen(n.Text)
	if fault != nil {
		d.fail(fault.code, n.Span, fault.message, fault.help)
		return ""
	}
	return a.String()
}

func (d *decoder) mhTable(n *yaml.Node) uint32 {
	size := numberOf(n, 0)
	if n != nil && !isPrime(size) {
		below, above := size, size
		for !isPrime(below) {
			below--
		}
		for !isPrime(above) {
			above++
		}
		d.fail(codePrime, n.Span, fmt.Sprintf("mh_table is %d, which is not a prime", size), fmt.Sprintf("write %d or %d", below, above))
	}
	return size
}

func isPrime(n uint32) bool {
	for i := uint32(2); i*i <= n; i++ {
		if n%i == 0 {
			return false
		}
	}
	return n > 1
}

func (d *decoder) service(n *yaml.Node) *service {
	errors := d.errors
	s := &service{node: n, address: get(n, "address"), method: methodOf(n, lvs.DR)}
	s.Name = textOf(get(n, "name"))
	if protocol := get(n, "protocol"); protocol != nil {
		_ = s.Protocol.UnmarshalText([]byte(protocol.Text)) // one of the table's words
	}
	if s.address != nil {
		var fault *fault
		if s.Address, fault = parseAddress(s.address.Text, "a VIP"); fault != nil {
			d.fail(fault.code, s.address.Span, fault.message, fault.help)
			s.address = nil
		}
	}
	s.Scheduler = lvs.Scheduler(textOf(get(n, "scheduler")))
	if s.Scheduler == "" && !has(n, "scheduler") {
		s.Scheduler = lvs.WLC
	}
	d.flags(s, get(n, "scheduler_flags"))
	s.RealServers = []lvs.RealServer{}
	if list := get(n, "real_servers"); list != nil {
		d.realServers(s, list)
	}
	s.whole = d.errors == errors && !n.Incomplete && !s.unsure && s.address != nil && s.Protocol != 0 && s.Scheduler != ""
	return s
}

// flags reads each flag by itself, to point at the one that the scheduler has not.
func (d *decoder) flags(s *service, list *yaml.Node) {
	if list == nil || s.Scheduler == "" {
		return
	}
	var names []string
	for i := range list.Items {
		item := &list.Items[i]
		if item.Kind != yaml.Text {
			continue
		}
		if _, err := lvs.ParseSchedulerFlags(s.Scheduler, []string{item.Text}); err != nil {
			d.fail(codeFlag, item.Span, fmt.Sprintf("the scheduler %s has no flag %s", s.Scheduler, item.Text), flagHelp(s.Scheduler))
			item.Kind = yaml.Broken
			continue
		}
		names = append(names, item.Text)
	}
	s.Flags, _ = lvs.ParseSchedulerFlags(s.Scheduler, names)
}

func flagHelp(s lvs.Scheduler) string {
	if s == lvs.SH || s == lvs.MH {
		return fmt.Sprintf("write %s-port or %s-fallback", s, s)
	}
	return "take it out; the schedulers sh and mh have such flags"
}

// sameServices looks for services that are there twice, and holds every one
// against lvs's own rules.
func (d *decoder) sameServices() {
	keys := make(map[lvs.ServiceKey]*service, len(d.services))
	names := map[string]*yaml.Node{}
	for _, s := range d.services {
		if s.address != nil && s.Protocol != 0 {
			if first := keys[s.ServiceKey]; first != nil {
				d.fail(codeService, s.address.Span, fmt.Sprintf("the service %s is there already, in line %d", s.ServiceKey, d.line(int(first.address.Start))), "put the real servers of both into one")
				s.whole = false
			} else {
				keys[s.ServiceKey] = s
			}
		}
		if name := get(s.node, "name"); name != nil {
			if first := names[s.Name]; first != nil {
				d.fail(codeNameTwice, name.Span, fmt.Sprintf("the name %q is that of the service in line %d", s.Name, d.line(int(first.Start))), "give each its own name, or none")
			} else {
				names[s.Name] = name
			}
		}
		if !s.whole {
			continue
		}
		if err := s.Validate(); err != nil {
			d.fail(codeRefused, s.node.Span, err.Error(), "")
		}
	}
}

func textOf(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Text
}

// numberOf returns a number that was found in its bounds, or the fallback.
func numberOf(n *yaml.Node, fallback uint32) uint32 {
	if n == nil {
		return fallback
	}
	value, _ := strconv.ParseUint(n.Text, 10, 32)
	return uint32(value)
}

// durationOf returns a duration that was found right, or 0.
func durationOf(n *yaml.Node) lvs.Duration {
	if n == nil {
		return 0
	}
	value, _ := time.ParseDuration(n.Text)
	return lvs.Duration(value)
}
