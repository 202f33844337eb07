// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvx/api"
	"lvx/internal/config"
	"lvx/internal/lvs"
)

func TestHistoryIsListed(t *testing.T) {
	socket := daemon(t, 0)
	want(t, run(socket, []string{"history"}), result{ExitDone, strings.TrimPrefix(`
TIME                 GENERATION  REVISION  WHO                     WHAT                          RESULT
2026-11-21 10:00:00           4         1  root (uid 0, pid 11)    apply /etc/lvx/lvx.yaml       done
2026-11-21 11:00:00           5         -  ann (uid 1000, pid 12)  add-service tcp 192.0.2.1:81  done
2026-11-21 12:00:00           5         -  ann (uid 1000, pid 13)  apply /tmp/\x1b[2J.yaml       the tables were changed meanwhile
`, "\n"), ""})
	want(t, run(socket, []string{"history", "--revisions"}), result{ExitDone, strings.TrimPrefix(`
REVISION  GENERATION  TIME                 WHO                   HOLDS                      WHAT
       1           4  2026-11-21 10:00:00  root (uid 0, pid 11)  1 service, 2 real servers  apply /etc/lvx/lvx.yaml
`, "\n"), ""})
	asked := ""
	limited := answering(t, map[string]http.HandlerFunc{"GET " + api.PathHistory: func(w http.ResponseWriter, r *http.Request) {
		asked = r.FormValue("limit")
		value([]lvs.HistoryEntry{})(w, r)
	}})
	if got := run(limited, []string{"history", "--limit", "7", "--json"}); got.out != "[]\n" || asked != "7" {
		t.Errorf("%+v, asked for %q", got, asked)
	}
}

// exporting is a daemon that has this configuration.
func exporting(t *testing.T, have lvs.Configuration) string {
	return answering(t, map[string]http.HandlerFunc{"GET " + api.PathConfiguration: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"12"`)
		value(have)(w, r)
	}})
}

func TestExportIsTheFile(t *testing.T) {
	socket := exporting(t, configuration())
	got := run(socket, []string{"export"})
	first, _, _ := strings.Cut(got.out, "\n")
	if want := "# Instance default, generation 12, " + stamp(noon) + ", by lvx export."; first != want || got.code != ExitDone {
		t.Errorf("%+v", got)
	}
	again, found := config.Parse("export", []byte(got.out))
	if len(found.Errors()) > 0 {
		t.Fatalf("%v in\n%s", found.Err(), got.out)
	}
	if diff := cmp.Diff(configuration().Services, again.Services, cmp.Comparer(lvs.Service.Equal)); diff != "" || again.Services[0].Name != "web" {
		t.Errorf("-had +read again\n%s", diff)
	}
	old := run(socket, []string{"export", "--revision", "1"})
	first, body, _ := strings.Cut(old.out, "\n")
	if want := fmt.Sprintf("# Instance default, revision 1, %s by root (uid 0, pid 11): apply /etc/lvx/lvx.yaml.", stamp(revisions()[0].Time)); first != want {
		t.Errorf("%s", first)
	}
	if _, now, _ := strings.Cut(got.out, "\n"); now != body {
		t.Errorf("the same is written in two ways:\n%s\n%s", now, body)
	}
	want(t, run(socket, []string{"export", "--revision", "9"}),
		result{ExitFailed, "", "lvx: revision 9: there is no such revision; list them with: lvx history --revisions\n"})
	var list []lvs.Configuration
	if got := run(socket, []string{"export", "--json"}); json.Unmarshal([]byte(got.out), &list) != nil || len(list) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestExportReplacesAFile(t *testing.T) {
	socket := exporting(t, configuration())
	dir := t.TempDir()
	path, link := filepath.Join(dir, "lvx.yaml"), filepath.Join(dir, "link.yaml")
	for _, e := range []error{os.WriteFile(path, []byte("old"), 0o600), os.Symlink("lvx.yaml", link)} {
		if e != nil {
			t.Fatal(e)
		}
	}
	printed := run(socket, []string{"export"}).out
	for _, to := range []string{path, link, filepath.Join(dir, "new.yaml")} {
		want(t, run(socket, []string{"export", "-o", to}), result{ExitDone, "", ""})
		if text, err := os.ReadFile(to); err != nil || string(text) != printed {
			t.Errorf("%s: %v\n%s", to, err, text)
		}
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i.Mode(), err)
	}
	if i, err := os.Lstat(link); err != nil || i.Mode().IsRegular() {
		t.Errorf("the link is gone: %v, %v", i.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if got := run(socket, []string{"export", "-o", filepath.Join(dir, "no/where.yaml")}); got.code != ExitFailed {
		t.Errorf("%+v", got)
	}
}
