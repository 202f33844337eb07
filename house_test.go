// SPDX-License-Identifier: Apache-2.0

package lvx_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These are tests of the house itself. Run them with -count=1: the test cache
// cannot see that imports change.

// mayKnow says who may know whom: a package knows only packages below it,
// never its neighbours, never upwards. The order is that of the floors. A
// package that is not built yet has its place already.
var mayKnow = []struct{ name, knows string }{
	{"lvs", ""},

	{"sched", "lvs"},
	{"ipvsadm", "lvs"},
	{"config/yaml", ""},
	{"config", "lvs config/yaml"},
	{"availability", "lvs"},
	{"api", "lvs"},

	{"dataplane", "lvs sched"},
	{"realserver", "lvs"},
	{"health", "lvs"},
	{"vrrp", "lvs"},
	{"connsync", "lvs"},
	{"store", "lvs"},
	{"lab", "lvs"},

	{"director", "lvs health availability"},
	{"diagnose", "lvs realserver api"},

	{"server", "lvs api director diagnose"},

	{"cli", "lvs ipvsadm config api diagnose realserver lab"},

	{"cmd/lvx", everything},
	{"test", everything}, // whole programs are tested from outside, whatever they touch
}

const everything = "*"

// mustNotReach is what the table is for, checked through others as well: the
// command line is a client like any other, and every change passes the director.
var mustNotReach = map[string][]string{
	"cli":    {"director", "dataplane", "server"},
	"server": {"dataplane"},
}

// mayLoadPrograms are the packages that may import cilium/ebpf.
var mayLoadPrograms = []string{"dataplane", "realserver", "lab", "diagnose", "test"}

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Dir           string
	GoFiles, Imports, Deps    []string
	TestImports, XTestImports []string
}

func TestImportsPointDown(t *testing.T) {
	allowed := map[string][]string{}
	for _, row := range mayKnow {
		allowed[row.name] = strings.Fields(row.knows)
	}
	for _, p := range packages(t) {
		name := room(p.ImportPath)
		if len(p.GoFiles) == 0 {
			continue // tests alone
		}
		knows, known := allowed[name]
		if !known {
			t.Errorf("%s is not in the table of this test: say where it belongs", p.ImportPath)
			continue
		}
		for _, imported := range ours(p.Imports) {
			if imported != name && !slices.Contains(knows, imported) && !slices.Contains(knows, everything) {
				t.Errorf("%s imports %s, which it may not know", name, imported)
			}
		}
		for _, reached := range ours(p.Deps) {
			if slices.Contains(mustNotReach[name], reached) {
				t.Errorf("%s reaches %s through others", name, reached)
			}
		}
	}
}

func TestWhoLoadsPrograms(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "github.com/cilium/ebpf") && !slices.Contains(mayLoadPrograms, room(p.ImportPath)) {
				t.Errorf("%s imports %s: programs and maps are reached through dataplane", p.ImportPath, imported)
			}
		}
	}
}

func TestOnePackageComment(t *testing.T) {
	for _, p := range packages(t) {
		var with []string
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				with = append(with, name)
			}
		}
		if len(p.GoFiles) > 0 && len(with) != 1 {
			t.Errorf("%s says what it is for in %d files %v, not in one", p.ImportPath, len(with), with)
		}
	}
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func TestEveryFileNamesItsLicence(t *testing.T) {
	for path, text := range files(t) {
		want := "Apache-2.0"
		switch filepath.Ext(path) {
		case ".c", ".h":
			want = "GPL-2.0-only OR BSD-2-Clause"
		case ".go", ".sh":
		default:
			continue
		}
		if strings.HasPrefix(path, "bpf/include/") || generated.Match(text) {
			continue // not ours, or not written
		}
		head := string(text[:min(len(text), 200)])
		if !strings.Contains(head, "SPDX-License-Identifier: "+want) {
			t.Errorf("%s does not begin with SPDX-License-Identifier: %s", path, want)
		}
	}
}

func TestNoDebugPrintsInPrograms(t *testing.T) {
	for path, text := range files(t) {
		if strings.HasPrefix(path, "bpf/") && !strings.HasPrefix(path, "bpf/include/") && bytes.Contains(text, []byte("bpf_"+"printk")) {
			t.Errorf("%s prints for debugging", path)
		}
	}
}

// Nothing in the repository, objects included, may know where it was built.
func TestNoMachinePaths(t *testing.T) {
	machine := regexp.MustCompile(`(^|[\s"'=(` + "`" + `])/(work|root|home)/[a-z]`)
	for path, text := range files(t) {
		if at := machine.FindIndex(text); at != nil {
			t.Errorf("%s names a path of one machine: %q", path, text[at[0]:min(len(text), at[1]+30)])
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)

func TestLinksInDocumentsExist(t *testing.T) {
	for path, text := range files(t) {
		if filepath.Ext(path) != ".md" {
			continue
		}
		for _, found := range link.FindAllSubmatch(text, -1) {
			target := string(found[1])
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), target)); err != nil {
				t.Errorf("%s links to %s: %v", path, target, err)
			}
		}
	}
}

// The tree that the README draws is the tree there is.
func TestReadmeTreeExists(t *testing.T) {
	_, tree, drawn := strings.Cut(string(files(t)["README.md"]), "```tree\n")
	tree, _, _ = strings.Cut(tree, "```")
	if !drawn {
		t.Fatal("README.md has no ```tree block")
	}
	for line := range strings.Lines(tree) {
		path, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the README's tree shows %s: %v", path, err)
		}
	}
}

func TestChangelogSpeaksOfWhatIsUnreleased(t *testing.T) {
	if !bytes.Contains(files(t)["CHANGELOG.md"], []byte("\n## Unreleased\n")) {
		t.Error("CHANGELOG.md has no section Unreleased")
	}
}

var explained = regexp.MustCompile(`(?m)^\| ([a-z]+\.[^ ]+)`)

// A dependency is a decision, and ARCHITECTURE.md says why it was taken.
func TestEveryDependencyIsExplained(t *testing.T) {
	var modules []string
	for _, row := range explained.FindAllSubmatch(files(t)["ARCHITECTURE.md"], -1) {
		modules = append(modules, string(row[1]))
	}
	for _, p := range packages(t) {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			host, _, _ := strings.Cut(imported, "/")
			isExplained := func(module string) bool { return strings.HasPrefix(imported+"/", module+"/") }
			if strings.Contains(host, ".") && !slices.ContainsFunc(modules, isExplained) {
				t.Errorf("%s imports %s: say in ARCHITECTURE.md what it saves us", p.ImportPath, imported)
			}
		}
	}
}

// room returns the name that the table has for an import path: "cli" for
// lvx/internal/cli, "test" for lvx/test/bench.
func room(path string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(path, "lvx/"), "internal/")
	if strings.HasPrefix(name, "test/") {
		return "test"
	}
	return name
}

// ours returns the rooms among the import paths.
func ours(paths []string) (rooms []string) {
	for _, path := range paths {
		if strings.HasPrefix(path, "lvx/") {
			rooms = append(rooms, room(path))
		}
	}
	return rooms
}

func packages(t *testing.T) (all []goPackage) {
	t.Helper()
	text, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps,TestImports,XTestImports", "./...").Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("go list: %s", exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	for values := json.NewDecoder(bytes.NewReader(text)); ; {
		var p goPackage
		if err := values.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// files returns the text of every file of the repository by its path.
func files(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (path == ".git" || path == "bin") {
			return filepath.SkipDir
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		all[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
