// Command kafka is Kafka's Go clients as one program, for the integration tests to
// run in a workload: a module of its own, because the product needs none of them.
//
//	kafka LIBRARY OPERATION [key=value]...
//
// LIBRARY is franz, sarama, segmentio, or raw for what none of them would send. What was done is a line on stdout each;
// what failed is "error CODE: text" with Kafka's code, or -1 if it has none.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
)

// settings are the arguments of the form key=value.
type settings map[string]string

func (s settings) number(key string, otherwise int) int {
	if n, err := strconv.Atoi(s[key]); err == nil {
		return n
	}
	return otherwise
}

func (s settings) topics() []string { return strings.Split(s["topic"], ",") }

// client is a library's way to do each operation.
type client interface {
	do(ctx context.Context, operation string) error
}

func main() {
	if len(os.Args) < 3 {
		fmt.Println("error -1: usage: kafka LIBRARY OPERATION [key=value]...")
		os.Exit(2)
	}
	s := settings{"id": "app", "records": "1", "size": "10"}
	for _, a := range os.Args[3:] {
		key, value, _ := strings.Cut(a, "=")
		s[key] = value
	}
	library := map[string]client{"franz": franz{s}, "sarama": saramas{s}, "segmentio": segmentio{s}, "raw": raws{s}}[os.Args[1]]
	if library == nil {
		fmt.Println("error -1: there is no library", os.Args[1])
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.number("seconds", 90))*time.Second)
	defer cancel()
	begun := time.Now()
	if err := library.do(ctx, os.Args[2]); err != nil {
		fmt.Printf("error %d: %v\n", code(err), err)
	}
	fmt.Printf("took %s\n", time.Since(begun).Round(time.Millisecond))
}

// code is Kafka's error code, in each library's form.
func code(err error) int {
	if e := (*kerr.Error)(nil); errors.As(err, &e) {
		return int(e.Code)
	}
	if e := sarama.KError(0); errors.As(err, &e) {
		return int(e)
	}
	if all := (sarama.ProducerErrors)(nil); errors.As(err, &all) && len(all) > 0 {
		return code(all[0].Err)
	}
	if e := kafka.Error(0); errors.As(err, &e) {
		return int(e)
	}
	if all := (kafka.WriteErrors)(nil); errors.As(err, &all) {
		for _, e := range all {
			if e != nil {
				return code(e)
			}
		}
	}
	return -1
}

func unknown(operation string) error { return fmt.Errorf("there is no operation %s", operation) }

func record(s settings, i int) []byte {
	text := fmt.Sprintf("record %d", i)
	return []byte(text + strings.Repeat(".", max(0, s.number("size", 0)-len(text))))
}
