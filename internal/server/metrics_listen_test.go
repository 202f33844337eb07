// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

// listenForScrapes serves metrics of the director on a port of loopback until the test, or
// stop, ends it. stop returns what ServeMetrics did.
func listenForScrapes(t *testing.T, d *scraped) (address string, stop func() error) {
	t.Helper()
	listener, err := ListenMetrics(lvs.MetricsListen{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serverOf(d, false).ServeMetrics(ctx, listener) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String(), stop
}

func TestListenMetricsSaysWhatToDo(t *testing.T) {
	if listener, err := ListenMetrics(lvs.MetricsListen{}); listener != nil || err != nil {
		t.Errorf("nothing to listen on: %v, %v", listener, err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "choose another one",
		"192.0.2.200:9380":    "has no such address",
		"127.0.0.1":           "ADDRESS:PORT",
		"127.0.0.1:99999":     "ADDRESS:PORT",
	} {
		listener, err := ListenMetrics(lvs.MetricsListen{Listen: address})
		if err == nil {
			listener.Close()
			t.Errorf("%s: no error", address)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || !strings.Contains(text, address) || !strings.Contains(text, "metrics.listen") {
			t.Errorf("%s: %s", address, text)
		}
	}
}

func TestServeMetricsAnswersNothingElse(t *testing.T) {
	address, _ := listenForScrapes(t, sampleDirector())
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/metrics", "", 200},
		{"GET", "/metrics?name[]=lvx_warnings", "", 200},
		{"GET", "/metrics", "a body", 413},
		{"POST", "/metrics", "", 404},
		{"HEAD", "/metrics", "", 404},
		{"GET", "/metrics/", "", 404},
		{"GET", "/", "", 404},
		{"GET", "/v1/services", "", 404},
		{"PUT", "/v1/configuration", "{}", 404},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+address+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Error(err)
		}
		if answer.StatusCode != c.want || (c.want == 200) != strings.Contains(string(text), "lvx_warnings 1") {
			t.Errorf("%s %s %q: %d\n%s", c.method, c.path, c.body, answer.StatusCode, text)
		}
		if content := answer.Header.Get("Content-Type"); c.want == 200 && !strings.HasPrefix(content, "text/plain; version=0.0.4") {
			t.Errorf("%s %s is sent as %q", c.method, c.path, content)
		}
	}
}

// A scrape under way reads the data plane: the daemon may not go on stopping before
// it has ended, and it is answered.
func TestServeMetricsWaitsForScrapes(t *testing.T) {
	d, began, goOn := sampleDirector(), make(chan struct{}), make(chan struct{})
	ended := false
	d.reading = func() {
		close(began)
		<-goOn
		ended = true
	}
	address, stop := listenForScrapes(t, d)
	answered := make(chan error, 1)
	go func() {
		answer, err := http.Get("http://" + address + api.PathMetrics)
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			err = errors.Join(err, answer.Body.Close())
		}
		answered <- err
	}()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// The listener closes first, so a refused connection says that it is stopping.
	for {
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case <-stopped:
		t.Error("it stopped under the scrape")
	default:
	}
	close(goOn)
	if err := <-stopped; err != nil || !ended {
		t.Errorf("stopped with %v, the scrape ended: %v", err, ended)
	}
	if err := <-answered; err != nil {
		t.Errorf("the scrape under way: %v", err)
	}
}

// Whoever opens connections and says nothing gets so many and no more.
func TestServeMetricsBoundsConnections(t *testing.T) {
	address, _ := listenForScrapes(t, sampleDirector())
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range maxConnections {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	more, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	if n, err := more.Read(make([]byte, 1)); err == nil {
		t.Errorf("one more got %d bytes", n)
	}
	// It was closed for that, not for saying nothing: those before are still open.
	if _, err := fmt.Fprintf(open[0], "GET %s HTTP/1.1\r\nHost: lvx\r\n\r\n", api.PathMetrics); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(open[0]), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("the first is not answered: %v", err)
	}
	// With room again it is answered again. The server notices in its own time.
	for _, c := range open {
		c.Close()
	}
	for range 1000 {
		answer, err := http.Get("http://" + address + api.PathMetrics)
		if err == nil {
			answer.Body.Close()
			return
		}
	}
	t.Error("no answer although all the others went")
}
