// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// Marshal writes a configuration as a file that Parse takes back to an equal one.
// What is the default is left out, but for the scheduler, which is what a reader
// looks for.
//
// Returns an error that says why if no file can say what the configuration says.
func Marshal(c lvs.Configuration) ([]byte, error) {
	var w writer
	w.director(c)
	w.services(c.Services)
	w.api(c.Settings.API)
	w.metrics(c.Settings.Metrics)
	text := w.Bytes()
	back, found := Parse("the configuration", text)
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("write the configuration as a file: %w", err)
	}
	if !equal(c, *back) {
		return nil, fmt.Errorf("write the configuration as a file: it says what no file can: %w", lvs.ErrInvalid)
	}
	return text, nil
}

func equal(a, b lvs.Configuration) bool {
	return a.Settings.Equal(b.Settings) && a.Timeouts == b.Timeouts &&
		slices.EqualFunc(a.Services, b.Services, func(a, b lvs.Service) bool { return a.Name == b.Name && a.Equal(b) })
}

// writer writes blocks, with short values in { }.
type writer struct{ bytes.Buffer }

func (w *writer) line(indent int, format string, args ...any) {
	w.WriteString(strings.Repeat("  ", indent))
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

// section writes the lines that write made under a heading, if there are any.
func (w *writer) section(heading string, write func(*writer)) {
	var inner writer
	if write(&inner); inner.Len() > 0 {
		w.line(0, "%s:", heading)
		w.Write(inner.Bytes())
	}
}

func (w *writer) director(c lvs.Configuration) {
	s := c.Settings
	w.section("director", func(w *writer) {
		if len(s.Interfaces) > 0 {
			w.line(1, "interfaces: %s", words(s.Interfaces))
		}
		if s.XDP != "" {
			w.line(1, "xdp: %s", plain(s.XDP))
		}
		w.pairs("capacity", number("connections", s.Capacity.Connections), number("services", s.Capacity.Services), number("real_servers", s.Capacity.RealServers))
		if s.MHTable != 0 {
			w.line(1, "mh_table: %d", s.MHTable)
		}
		w.pairs("timeouts", period("tcp", c.Timeouts.TCP), period("tcp_fin", c.Timeouts.TCPFin), period("udp", c.Timeouts.UDP))
	})
}

func (w *writer) services(all []lvs.Service) {
	if len(all) == 0 {
		w.line(0, "services: []")
		return
	}
	w.line(0, "services:")
	for _, s := range all {
		w.service(s)
	}
}

func (w *writer) service(s lvs.Service) {
	dash := "- "
	field := func(key, value string) {
		w.line(1, "%s%s:%s", dash, key, value)
		dash = "  "
	}
	if s.Name != "" {
		field("name", " "+plain(s.Name))
	}
	field("address", " "+plain(s.Address.String()))
	field("protocol", " "+s.Protocol.String())
	field("scheduler", " "+plain(string(s.Scheduler)))
	if s.Flags != "" {
		field("scheduler_flags", " "+words(s.Flags.Names()))
	}
	if len(s.RealServers) == 0 {
		field("real_servers", " []")
		return
	}
	field("real_servers", "")
	for _, r := range s.RealServers {
		w.realServer(r)
	}
}

func (w *writer) realServer(r lvs.RealServer) {
	pairs := []string{"address: " + quoted(r.Address.String())}
	if r.Weight != 1 {
		pairs = append(pairs, fmt.Sprintf("weight: %d", r.Weight))
	}
	if r.Method != lvs.DR {
		pairs = append(pairs, "method: "+plain(string(r.Method)))
	}
	if isDefault := r.Method == lvs.Tun && r.Tunnel == (lvs.Tunnel{Type: lvs.IPIP}); !isDefault && r.Tunnel != (lvs.Tunnel{}) {
		pairs = append(pairs, tunnel(r.Tunnel))
	}
	w.line(3, "- { %s }", strings.Join(pairs, ", "))
}

func tunnel(t lvs.Tunnel) string {
	pairs := []string{"type: " + plain(string(t.Type))}
	if t.Port != 0 {
		pairs = append(pairs, fmt.Sprintf("port: %d", t.Port))
	}
	if t.Checksum != lvs.NoChecksum {
		pairs = append(pairs, "checksum: "+plain(string(t.Checksum)))
	}
	return "tunnel: { " + strings.Join(pairs, ", ") + " }"
}

func (w *writer) api(api lvs.APISettings) {
	w.section("api", func(w *writer) {
		if api.Listen != "" {
			w.line(1, "listen: %s", quoted(api.Listen))
		}
		w.pairs("tls", name("cert", api.TLS.Cert), name("key", api.TLS.Key), name("client_ca", api.TLS.ClientCA))
	})
}

func (w *writer) metrics(m lvs.MetricsListen) {
	w.section("metrics", func(w *writer) {
		if m.Listen != "" {
			w.line(1, "listen: %s", quoted(m.Listen))
		}
		if m.NodeIPVS {
			w.line(1, "node_ipvs: true")
		}
	})
}

// pairs writes "key: { … }" of the pairs that are not empty.
func (w *writer) pairs(key string, all ...string) {
	all = slices.DeleteFunc(all, func(pair string) bool { return pair == "" })
	if len(all) > 0 {
		w.line(1, "%s: { %s }", key, strings.Join(all, ", "))
	}
}

func number(key string, value uint32) string {
	if value == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d", key, value)
}

func name(key, value string) string {
	if value == "" {
		return ""
	}
	return key + ": " + quoted(value)
}

func period(key string, value lvs.Duration) string {
	if value == 0 {
		return ""
	}
	text := time.Duration(value).String() // 15m0s
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	if short, ok := strings.CutSuffix(text, "h0m"); ok {
		text = short + "h"
	}
	return key + ": " + text
}

func words(list []string) string {
	plainWords := make([]string, len(list))
	for i, word := range list {
		plainWords[i] = plain(word)
	}
	return "[" + strings.Join(plainWords, ", ") + "]"
}

// plain writes a text without quotes where every reader takes it for that text.
func plain(text string) string {
	const harmless = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:"
	if text == "" || strings.Trim(text, harmless) != "" || strings.Trim(text, "._-:") != text ||
		plainType(text) != plainText || strings.EqualFold(text, "null") {
		return quoted(text)
	}
	return text
}

// quoted writes a text in quotes, with JSON's escapes.
func quoted(text string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a text into memory
	return strings.TrimSpace(b.String())
}
