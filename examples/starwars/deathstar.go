package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	landingPath = "/v1/request-landing"
	exhaustPath = "/v1/exhaust-port"

	landedText = "Ship landed\n"
	panicText  = `panic: thermal exhaust port reached main reactor

goroutine 1138 [imploding]:
main.(*Reactor).Vent(0x2, 0x6d)
	/deathstar/reactor.go:42 (no grille: see budget review)
main.main()
	/deathstar/main.go:1977
`
)

// operational is what the Death Star says once it accepts connections.
const operational = "this station is now fully operational on "

func runDeathstar(ctx context.Context, args []string, log io.Writer) error {
	f := flag.NewFlagSet("starwars deathstar", flag.ContinueOnError)
	listen := f.String("listen", ":80", "`address` to listen on")
	if err := f.Parse(args); err != nil {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", *listen, err)
	}
	fmt.Fprintf(log, "%s%s\n", operational, listener.Addr())
	server := &http.Server{Handler: deathstar(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// deathstar is the API, careless as in the film: whoever reaches it may use it.
func deathstar() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		// The client may be gone; there is nobody to tell.
		_ = enc.Encode(map[string]any{
			"name":     "Death Star",
			"hostname": "deathstar",
			"paths":    []string{"GET /v1/", "POST " + landingPath, "PUT " + exhaustPath},
		})
	})
	mux.HandleFunc("POST "+landingPath, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, landedText)
	})
	mux.HandleFunc("PUT "+exhaustPath, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, panicText)
	})
	return mux
}
