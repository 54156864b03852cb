// The programs that the scripts start.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { delimiter, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository. */
export const root = resolve(fileURLToPath(new URL('../..', import.meta.url)));

/** The pinned pnpm with its arguments, as npx runs it. */
export function pnpmCommand(args) {
  const { packageManager } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'));
  return ['npx', '--yes', packageManager, ...args];
}

/** turbo with its arguments, from node_modules. */
export const turboCommand = (args) => [process.execPath, `${root}/node_modules/turbo/bin/turbo`, ...args];

// turbo looks for pnpm on the PATH; it is a development dependency of the repository.
const environment = {
  ...process.env,
  PATH: `${root}/node_modules/.bin${delimiter}${process.env.PATH ?? ''}`,
  TURBO_TELEMETRY_DISABLED: '1',
  TURBO_NO_UPDATE_NOTIFIER: '1',
  COREPACK_ENABLE_DOWNLOAD_PROMPT: '0',
};

// npx is a script there, which only a shell can start.
const isWindowsScript = (command) => process.platform === 'win32' && command === 'npx';

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** One line on stderr, so that stdout stays what the command prints. */
export const say = (text) => process.stderr.write(`${text}\n`);

/**
 * Runs a step quietly; what it printed is shown only when it fails, which ends the process with its status.
 * @param show let the step print
 */
export function step(title, [command, ...args], { env = {}, show = false } = {}) {
  const started = performance.now();
  if (process.stderr.isTTY && !show) process.stderr.write(`${title} ...`);
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    env: { ...environment, ...env },
    stdio: ['ignore', show ? 'inherit' : 'pipe', show ? 'inherit' : 'pipe'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    shell: isWindowsScript(command),
  });
  const took = seconds(performance.now() - started);
  if (process.stderr.isTTY && !show) process.stderr.write('\r\u001b[K');
  if (status === 0) return say(`${title}: ${took}`);
  say(`${stdout ?? ''}${stderr ?? ''}`.trimEnd());
  say(
    `${title} failed after ${took}${error ? `: ${error.message}` : ''}. The command was: ${[command, ...args].join(' ')}`,
  );
  process.exit(status || 1);
}

/** Whether a program is there. */
export const has = (command) =>
  spawnSync(command, ['--version'], { stdio: 'ignore', shell: process.platform === 'win32' }).status === 0;
