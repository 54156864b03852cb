import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const main = fileURLToPath(new URL('../dist/main.js', import.meta.url));
export const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Standard input; `'open'` never ends. Default: empty. */
  readonly input?: string;
  /** Sends SIGINT when this text appears on stdout. */
  readonly interruptAfter?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Gets the process as it starts. */
  readonly onStart?: (child: ChildProcess) => void;
}

/** Runs the built `q`. */
export function q(
  args: readonly string[],
  { input, interruptAfter, env: more, onStart }: RunOptions = {},
): Promise<Finished> {
  const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined, COLUMNS: '100', ...more };
  const child = spawn(process.execPath, [main, ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  let interrupted = false;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (interruptAfter !== undefined && !interrupted && stdout.includes(interruptAfter)) {
      interrupted = true;
      child.kill('SIGINT');
    }
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined); // a command that does not read its input may be gone already
  if (input !== 'open') child.stdin.end(input ?? '');
  onStart?.(child);
  return new Promise((resolve, reject) =>
    child.on('error', reject).on('close', (code) => resolve({ code, stdout, stderr })),
  );
}

/** Runs `q ... --json` and parses what it prints. @throws when it fails. */
export async function qJson<T>(...args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await q([...args, '--json']);
  if (code !== 0) throw new Error(`q ${args.join(' ')} ended with ${code}: ${stderr}`);
  return JSON.parse(stdout) as T;
}
