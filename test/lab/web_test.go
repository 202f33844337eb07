// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lvx/internal/lab"
)

// nginxConfig is the whole of it: nothing outside its directory is touched. The
// arguments are directory, service and name.
const nginxConfig = `user root;
worker_processes 1;
daemon off;
pid %[1]s/pid;
error_log %[1]s/errors;
events {}
http {
	access_log %[1]s/access;
	client_body_temp_path %[1]s/body;
	client_max_body_size 16m;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		root %[1]s;
		location / { return 200 "%[3]s $remote_addr\n"; }
		location /file { dav_methods PUT; }
	}
}
`

// TestNginxAndCurl puts Debian's own web server and client at the two ends.
func TestNginxAndCurl(t *testing.T) {
	needPrograms(t)
	b := newBed(t, lab.Options{})
	b.start(b.Host(lab.Director), "--interface", "eth0")
	for _, family := range families {
		v := tcp(family, 80)
		b.join(family)
		b.do("ipvsadm -A %s -s rr", v.option())
		for _, h := range b.RealServers() {
			b.startNginx(h, v)
			b.do("ipvsadm -a %s -r %s -g", v.option(), v.on(h))
		}
		b.checkNginx(v)
		b.upAndDown(v)
	}
}

// needPrograms skips where nginx or curl is missing.
func needPrograms(t *testing.T) {
	t.Helper()
	for program, deb := range map[string]string{"nginx": "nginx-light", "curl": "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is missing: apt-get install %s (or: make deps)", program, deb)
		}
	}
}

// checkNginx asks twenty times: both real servers answer, and log the client.
func (b *bed) checkNginx(v virtual) {
	b.t.Helper()
	answers := map[string]int{}
	for range 20 {
		answers[b.curl("http://"+v.String()+"/")]++
	}
	client := b.Host(lab.Client).Addr(v.family())
	for _, h := range b.RealServers() {
		if n := answers[fmt.Sprintf("%s %s\n", h.Name, client)]; n != 10 {
			b.t.Errorf("%s, family %d: answers of %s: %d of 20: %v", b.Name, v.family(), h.Name, n, answers)
		}
	}
}

// startNginx runs it in the host and waits until it listens.
func (b *bed) startNginx(h *lab.Host, v virtual) {
	b.t.Helper()
	dir, config := b.t.TempDir(), filepath.Join(b.t.TempDir(), "nginx.conf")
	b.must("write its configuration", os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, v, h.Name), 0o644))
	d, err := b.StartDaemon(h, "nginx", "-p", dir, "-e", filepath.Join(dir, "errors"), "-c", config)
	b.must("start nginx", err)
	b.must("nginx", d.Await(b.t.Context(), 10*time.Second, func(ctx context.Context) bool {
		c, err := h.Dial(ctx, "tcp", v.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	}))
}

// curl runs it in the client and returns what it prints.
func (b *bed) curl(args ...string) string {
	b.t.Helper()
	line := append([]string{"curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10"}, args...)
	return b.typeAt(b.Host(lab.Client), strings.Join(line, " "))
}

// upAndDown puts a large file on whichever real server and gets it back from the
// other one a moment later, so that both directions carry much.
func (b *bed) upAndDown(v virtual) {
	b.t.Helper()
	file, back := filepath.Join(b.t.TempDir(), "file"), filepath.Join(b.t.TempDir(), "back")
	content := noise(8 << 20)
	b.must("write a file", os.WriteFile(file, content, 0o644))
	url := "http://" + v.String() + "/file"
	for range b.RealServers() { // round robin: each has it then
		b.curl("--upload-file", file, url)
	}
	b.curl("--output", back, url)
	got, err := os.ReadFile(back)
	if err != nil || string(got) != string(content) {
		b.t.Errorf("%s: %d bytes came back of %d, %v", url, len(got), len(content), err)
	}
}
