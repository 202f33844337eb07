// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"lvx/internal/lvs"
)

// What is made for operators, and what it is made of.
const (
	alertsFile    = "../../packaging/prometheus/alerts.yaml"
	alertsTests   = "../../packaging/prometheus/alerts_test.yaml"
	alertsPage    = "../../docs/alerts.md"
	dashboardFile = "../../packaging/grafana/lvx.json"
	reasonsPage   = "../../docs/reasons.md"
)

// targetLabels are those that Prometheus itself puts on everything it scrapes.
var targetLabels = []string{"job", "instance"}

// labelsOf returns the labels of a metric, or nil if there is no such metric.
func labelsOf(name string) []string {
	if name == "up" {
		return targetLabels
	}
	i := slices.IndexFunc(metrics[:], func(m metric) bool { return m.name == name })
	if i < 0 {
		return nil
	}
	return slices.Concat(metrics[i].labels, targetLabels)
}

// checkPromQL tells what an expression names that there is not, and returns the
// labels that its result can have.
func checkPromQL(t *testing.T, where, text string) (labels []string) {
	t.Helper()
	q, err := parsePromQL(text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if len(q.selectors) == 0 {
		t.Errorf("%s: %s names no metric", where, text)
	}
	for _, s := range q.selectors {
		has := labelsOf(s.metric)
		if has == nil {
			t.Errorf("%s: there is no metric %s", where, s.metric)
		}
		labels = append(labels, has...)
		for _, m := range s.matchers {
			if !slices.Contains(has, m.label) {
				t.Errorf("%s: %s has no label %s", where, s.metric, m.label)
			}
			checkValues(t, where, m)
		}
	}
	for _, l := range q.labels {
		if !slices.Contains(labels, l) {
			t.Errorf("%s: no metric of %s has a label %s", where, text, l)
		}
	}
	return labels
}

// checkValues tells whether a label can have the values that are asked for.
func checkValues(t *testing.T, where string, m matcher) {
	t.Helper()
	possible := map[string][]string{
		"reason":    reasonNames(t),
		"verdict":   {string(lvs.Forwarded), string(lvs.Passed), string(lvs.Dropped)},
		"table":     {"connections", "services", "real_servers"},
		"state":     {"active", "inactive"},
		"direction": {"in"},
	}
	for _, kind := range eventTypes {
		possible["type"] = append(possible["type"], string(kind))
	}
	for v := range strings.SplitSeq(m.value, "|") {
		if p, known := possible[m.label]; known && !slices.Contains(p, v) {
			t.Errorf("%s: %s is never %q", where, m.label, v)
		}
	}
}

func reasonNames(t *testing.T) (names []string) {
	t.Helper()
	page, err := os.ReadFile(reasonsPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_0-9]+)`").FindAllSubmatch(page, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// checkTemplate tells which labels a text wants that there are not.
func checkTemplate(t *testing.T, where, text string, form *regexp.Regexp, labels []string) {
	t.Helper()
	for _, m := range form.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(labels, m[1]) {
			t.Errorf("%s: %q wants a label %s", where, text, m[1])
		}
	}
}

var (
	annotationLabel = regexp.MustCompile(`\$labels\.(\w+)`)
	legendLabel     = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
)

// alertRules is the file of alerts, of which nothing is unknown.
type alertRules struct {
	Groups []struct {
		Name  string      `yaml:"name"`
		Rules []alertRule `yaml:"rules"`
	} `yaml:"groups"`
}

type alertRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations struct {
		Summary     string `yaml:"summary"`
		Description string `yaml:"description"`
		RunbookURL  string `yaml:"runbook_url"`
	} `yaml:"annotations"`
}

func readAlerts(t *testing.T) (rules []alertRule) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file alertRules
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

// Each alert asks for what there is, says what it is, and has its chapter; each
// chapter has its alert.
func TestAlerts(t *testing.T) {
	page, err := os.ReadFile(alertsPage)
	if err != nil {
		t.Fatal(err)
	}
	var chapters []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllSubmatch(page, -1) {
		chapters = append(chapters, string(m[1]))
	}
	var names []string
	for _, r := range readAlerts(t) {
		names = append(names, r.Alert)
		labels := checkPromQL(t, r.Alert, r.Expr)
		a := r.Annotations
		for _, text := range []string{a.Summary, a.Description} {
			checkTemplate(t, r.Alert, text, annotationLabel, labels)
			if text == "" {
				t.Errorf("%s: it has no summary or no description", r.Alert)
			}
		}
		if want := "docs/alerts.md#" + strings.ToLower(r.Alert); a.RunbookURL != want {
			t.Errorf("%s: the runbook is %q, want %q", r.Alert, a.RunbookURL, want)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: the severity is %q", r.Alert, s)
		}
	}
	if !slices.Equal(names, chapters) {
		t.Errorf("alerts:   %s\nchapters: %s", names, chapters)
	}
}

// Each alert is seen to fire, and not to, in promtool's tests.
func TestEveryAlertIsTested(t *testing.T) {
	text, err := os.ReadFile(alertsTests)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string `yaml:"alertname"`
				Expected  []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.AlertRuleTest {
			if len(c.Expected) > 0 {
				fires[c.AlertName] = true
			} else {
				silent[c.AlertName] = true
			}
		}
	}
	for _, r := range readAlerts(t) {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s is tested to fire: %v, and not to: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

// dashboard is what the test looks at of Grafana's model.
type dashboard struct {
	UID        string `json:"uid"`
	Panels     []dashboardPanel
	Templating struct {
		List []struct {
			Name       string          `json:"name"`
			Type       string          `json:"type"`
			Definition string          `json:"definition"`
			Datasource json.RawMessage `json:"datasource"`
		} `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct {
			Expr       string `json:"expr"`
			TextFormat string `json:"textFormat"`
		} `json:"list"`
	} `json:"annotations"`
}

type dashboardPanel struct {
	ID      int    `json:"id"`
	Title   string `json:"title"`
	Type    string `json:"type"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) (d dashboard, text string) {
	t.Helper()
	raw, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d, string(raw)
}

// The dashboard asks for what there is, of whichever data source is chosen.
func TestDashboard(t *testing.T) {
	d, text := readDashboard(t)
	if d.UID != "" {
		t.Errorf("the dashboard has the fixed uid %q", d.UID)
	}
	for _, m := range regexp.MustCompile(`"uid": *"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if m[1] != "${datasource}" {
			t.Errorf("the data source is the fixed %q", m[1])
		}
	}
	var rows []string
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: the id %d is not its own, or it is too wide", p.Title, p.ID)
		}
		seen[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s: it shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			labels := checkPromQL(t, p.Title, target.Expr)
			checkTemplate(t, p.Title, target.LegendFormat, legendLabel, labels)
		}
	}
	want := []string{"The director at a glance", "Virtual services", "Real servers", "Drops by reason", "Tables", "Interfaces"}
	if !slices.Equal(rows, want) {
		t.Errorf("the rows are %q", rows)
	}
	for _, a := range d.Annotations.List {
		checkTemplate(t, "annotation", a.TextFormat, legendLabel, checkPromQL(t, "annotation", a.Expr))
	}
}

// The variables are those that the expressions use, and ask for what there is.
func TestDashboardVariables(t *testing.T) {
	d, text := readDashboard(t)
	definition := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Type == "datasource" {
			continue
		}
		m := definition.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: %q is not label_values(METRIC, LABEL)", v.Name, v.Definition)
			continue
		}
		if labels := checkPromQL(t, v.Name, m[1]); !slices.Contains(labels, m[2]) {
			t.Errorf("variable %s: there is no label %s", v.Name, m[2])
		}
	}
	for _, m := range regexp.MustCompile(`\$\{?([a-z]\w*)`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("there is no variable %s", m[1])
		}
	}
	if !strings.Contains(text, "$datasource") && !strings.Contains(text, "${datasource}") {
		t.Error("the data source cannot be chosen")
	}
}

// Prometheus's own tool has the last word on alerts and expressions.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian package prometheus)")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run("check", "rules", alertsFile)
	run("test", "rules", alertsTests)

	// The dashboard's expressions as rules, with values for Grafana's variables.
	d, _ := readDashboard(t)
	values := strings.NewReplacer("$__rate_interval", "1m", "$__interval", "1m", "$job", "lvx", "$instance", ".*", "$service", ".*")
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for _, p := range d.Panels {
		for i, target := range p.Targets {
			rules += fmt.Sprintf("      - { record: 'panel:%d:%d', expr: %q }\n", p.ID, i, values.Replace(target.Expr))
		}
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	run("check", "rules", path)
}
