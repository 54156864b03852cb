// Sets a clone up: checks tools, installs packages with the pinned pnpm, builds. `--all` builds every package, not only
// what the CLI needs.
import { setup } from './lib/setup.mjs';

const unknown = process.argv.slice(2).filter((argument) => argument !== '--all');
if (unknown.length > 0) {
  process.stderr.write(`setup: unknown argument ${unknown[0]}; the only one is --all\n`);
  process.exit(2);
}
setup({ all: process.argv.includes('--all') });
