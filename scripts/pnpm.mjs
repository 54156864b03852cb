// Runs the pinned pnpm (package.json, "packageManager") with the given arguments, fetched through npx.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { pnpmCommand } from './lib/commands.mjs';

const [command, ...args] = pnpmCommand(process.argv.slice(2));
const { status, error } = spawnSync(command, args, {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  stdio: 'inherit',
  shell: process.platform === 'win32',
});
if (error) throw error;
process.exit(status ?? 1);
