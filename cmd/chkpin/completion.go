package main

import (
	"context"
	"io"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help implements [kong.HelpProvider].
func (*completionCommand) Help() string {
	return `For the shell's startup file; chkpin must be on PATH. The scripts ask the program itself, so they need not be renewed with it.

  $ source <(chkpin completion bash)     # in ~/.bashrc
  $ source <(chkpin completion zsh)      # in ~/.zshrc, after compinit
  $ chkpin completion fish | source      # in ~/.config/fish/config.fish`
}

// completions have a shell call chkpin with the line in COMP_LINE, as bash's
// complete -C does. Where chkpin has nothing to say, bash and zsh offer files.
var completions = map[string]string{
	"bash": `complete -o default -o bashdefault -C chkpin chkpin
`,
	"zsh": `autoload -U +X bashcompinit && bashcompinit
complete -o default -o bashdefault -C chkpin chkpin
`,
	"fish": `function __chkpin_complete
    set -lx COMP_LINE (commandline -cp)
    chkpin
end
complete -c chkpin -a "(__chkpin_complete)"
`,
}

// Run prints the script, also with --output json: it is for a shell alone.
func (c *completionCommand) Run(_ context.Context, env *environment) error {
	_, err := io.WriteString(env.stdout, completions[c.Shell])
	return err
}
