import { spawnSync } from 'node:child_process';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { version } from '../version.js';

/** Where and with what a figure was measured. */
export function machine(): Record<string, unknown> {
  const git = spawnSync('git', ['rev-parse', 'HEAD'], {
    cwd: fileURLToPath(new URL('.', import.meta.url)),
    encoding: 'utf8',
  });
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    threads: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${platform()} ${release()} ${arch()}`,
    versions: { q: version, node: process.version, v8: process.versions.v8 },
    ...(git.status === 0 && { commit: git.stdout.trim() }),
  };
}
