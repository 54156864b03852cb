// Runs the conformance suite under compute-sanitizer, in many processes at a time, and sums up. Lies beside suite.mjs
// (bundle.mjs copies it); needs a Node and the CUDA toolkit's compute-sanitizer. Usage: node sanitize.mjs [--device
// cuda:0] [--tools memcheck,racecheck,synccheck] [--processes N] [--filter REGEXP] [--shards FIRST,COUNT] [--seconds N]
// [--out FILE.json] [PROGRAM ...]
// --processes: parts of the suite, all at once (default: the processors); --shards: only these parts, to try it;
// --seconds: limit of a tool, after which what has not ended counts as broken. PROGRAM: further programs to run under
// each tool, such as build/q_test_ops. First, an error is planted that memcheck must find. Ends with 1 when it does
// not, when a tool finds something, a process breaks or a case fails.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: args, positionals: programs } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: 'string', default: 'cuda:0' },
    tools: { type: 'string', default: 'memcheck,racecheck,synccheck' },
    processes: { type: 'string', default: String(availableParallelism()) },
    filter: { type: 'string' },
    shards: { type: 'string' },
    seconds: { type: 'string', default: '300' },
    out: { type: 'string' },
  },
});
const suite = join(dirname(fileURLToPath(import.meta.url)), 'suite.mjs');
const folder = mkdtempSync(join(tmpdir(), 'q-sanitize-'));
const read = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

/** Runs one command under a tool. */
function sanitized(tool, name, command) {
  const log = join(folder, `${tool}-${name}.log`);
  // Errors of CUDA calls that the driver handles (a full device, cleared at once) are no memory errors: the suite tests
  // what they lead to.
  const options = [
    '--tool',
    tool,
    '--log-file',
    log,
    '--print-limit',
    '20',
    '--target-processes',
    'all',
    ...(tool === 'memcheck' ? ['--report-api-errors', 'no', '--leak-check', 'no'] : []),
  ];
  const child = spawn('compute-sanitizer', [...options, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => (output = (output + text).slice(-4000)));
  const started = performance.now();
  const timer = setTimeout(() => child.kill('SIGKILL'), Number(args.seconds) * 1000);
  return new Promise((resolve) => {
    const end = (code) => {
      clearTimeout(timer);
      const text = read(log);
      const errors = [...text.matchAll(/(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)/g)].map(
        (match) => Number(match[1] ?? match[2]),
      );
      resolve({
        name,
        code,
        seconds: (performance.now() - started) / 1000,
        errors: errors.length === 0 ? undefined : errors.reduce((a, b) => a + b, 0),
        text,
        output,
      });
    };
    child.on('error', (error) => {
      output += error.message;
      end(-1);
    });
    child.on('close', end);
  });
}

/**
 * What was found, over all processes: each finding once, without addresses and counts of its own, with how often it was
 * reported.
 */
function findingsOf(runs) {
  const counts = new Map();
  for (const { text } of runs) {
    for (const report of text.split(/\n=========\s*\n/)) {
      if (!/Error|Warning|Invalid|Barrier/.test(report) || /^=+ COMPUTE-SANITIZER\s*$/.test(report.trim())) continue;
      const what = report
        .split('\n')
        .map((line) =>
          line.replace(/^=+\s*/, '').replace(/\+0x[0-9a-f]+|0x[0-9a-f]+| \[\d+ hazards\]|\(\d+,\d+,\d+\)/g, ''),
        )
        .filter((line) =>
          /Race reported|Write access|Read access|Invalid|Barrier|at .*:\d+|by thread|Access/.test(line),
        );
      const key = [...new Set(what)].slice(0, 6).join(' | ');
      if (key) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return [...counts]
    .map(([what, count]) => ({ what, count }))
    .sort((a, b) => b.count - a.count)
    .slice(0, 30);
}

/** The suite in parts and the programs, all at once. */
async function under(tool) {
  const of = Number(args.processes);
  const [first, count] = (args.shards ?? `0,${of}`).split(',').map(Number);
  const started = performance.now();
  const parts = Array.from({ length: count }, (_, i) => first + i);
  const json = (part) => join(folder, `${tool}-${part}.json`);
  const runs = await Promise.all([
    ...parts.map((part) =>
      sanitized(tool, `part${part}`, [
        process.execPath,
        suite,
        '--device',
        args.device,
        '--only',
        'conformance',
        '--exact',
        '--shard',
        `${part}/${of}`,
        ...(args.filter ? ['--filter', args.filter] : []),
        '--out',
        json(part),
      ]),
    ),
    ...programs.map((program) => sanitized(tool, basename(program), program.split(' '))),
  ]);
  const reports = parts.map(
    (part) => JSON.parse(read(json(part)) || '{}').conformance ?? { passed: 0, failed: 0, failures: [] },
  );
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const broken = runs.filter(({ code, errors }) => errors === undefined || (errors === 0 && code !== 0));
  return {
    seconds: (performance.now() - started) / 1000,
    slowest: Math.max(...runs.map(({ seconds }) => seconds)),
    processes: runs.length,
    passed: sum(reports.map(({ passed }) => passed)),
    failed: sum(reports.map(({ failed }) => failed)),
    failures: reports.flatMap(({ failures }) => failures).slice(0, 20),
    errors: sum(runs.map(({ errors }) => errors ?? 0)),
    findings: findingsOf(runs),
    broken: broken
      .map(({ name, code, text, output }) => ({ name, code, log: text.slice(-600), output: output.slice(-600) }))
      .slice(0, 6),
    brokenProcesses: broken.length,
  };
}

const results = {};
// A tool that finds nothing must be able to find something: memory past the end of a tensor.
const { errors: planted } = args.tools.includes('memcheck')
  ? await sanitized('memcheck', 'plant', [process.execPath, suite, '--device', args.device, '--only', 'plant'])
  : { errors: 1 };
if (!(planted > 0)) {
  console.log('memcheck does not find an error that was planted: its results mean nothing');
  process.exitCode = 1;
}
for (const tool of args.tools.split(',')) {
  results[tool] = await under(tool);
  const { seconds, passed, failed, errors, brokenProcesses } = results[tool];
  console.log(
    `${tool}: ${errors} errors, ${passed} cases passed, ${failed} failed, ${brokenProcesses} processes broken, ${seconds.toFixed(0)} s`,
  );
}
rmSync(folder, { recursive: true });
if (args.out) writeFileSync(args.out, JSON.stringify(results, null, 2));
const isClean = ({ passed, failed, errors, brokenProcesses }) =>
  failed === 0 && errors === 0 && brokenProcesses === 0 && (passed > 0 || args.shards === '0,0');
for (const [tool, { findings, broken, failures }] of Object.entries(results))
  if (!isClean(results[tool])) console.log(tool, JSON.stringify({ findings, broken, failures }, null, 1));
if (!Object.values(results).every(isClean)) process.exitCode = 1;
