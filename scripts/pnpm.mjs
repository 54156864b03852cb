// Runs the pinned pnpm (package.json, "packageManager") with the given arguments, fetched through npx.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const root = new URL('..', import.meta.url);
const { packageManager } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
const { status, error } = spawnSync('npx', ['--yes', packageManager, ...process.argv.slice(2)], {
  cwd: root, stdio: 'inherit', shell: process.platform === 'win32',
});
if (error) throw error;
process.exit(status ?? 1);
