// Command blip2 trains, evaluates and uses BLIP-2; see package cli.
package main

import (
	"context"
	"os"

	"blip2/pkg/cli"
)

func main() {
	noPreemption()
	ctx, stop := cli.NotifyInterrupt(context.Background(), os.Stderr)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
