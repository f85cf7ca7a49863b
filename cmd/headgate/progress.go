package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progressAfter is how long a wait stays silent.
const progressAfter = time.Second

// isTerminal reports whether people read what is written there.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// progress tells a person at a terminal what is waited for, on a line that is
// wiped when the wait ends. Elsewhere it is silent.
type progress struct {
	w     io.Writer
	stop  chan struct{}
	ended sync.WaitGroup

	mu   sync.Mutex
	text string
}

func startProgress(w io.Writer, text string) *progress {
	p := &progress{w: w, stop: make(chan struct{}), text: text}
	if isTerminal(w) {
		p.ended.Go(p.run)
	}
	return p
}

// say changes the text.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = oneLine(text)
}

func (p *progress) end() {
	close(p.stop)
	p.ended.Wait()
}

func (p *progress) run() {
	started := time.Now()
	tick := time.NewTicker(progressAfter)
	defer tick.Stop()
	shown := false
	for {
		select {
		case <-p.stop:
			if shown {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-tick.C:
			p.mu.Lock()
			text := p.text
			p.mu.Unlock()
			fmt.Fprintf(p.w, "\r\x1b[K%s (%s)", text, time.Since(started).Round(time.Second))
			shown = true
		}
	}
}
