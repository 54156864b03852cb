// The import arrows between packages: each package may import the packages in its row and no others.
const allowed = {
  config: [],
  'device-map': ['config'],
  tensor: ['config'],
  'kernels-cpu': ['tensor', 'config'],
  'kernels-cuda': ['tensor'],
  nano: [],
  loader: ['tensor', 'config', 'device-map'],
  models: ['tensor', 'config'],
  generate: ['tensor', 'models', 'config'],
  gptq: ['models', 'tensor', 'config'],
  peft: ['models', 'tensor', 'config'],
  transformers: [
    'config',
    'device-map',
    'tensor',
    'kernels-cpu',
    'kernels-cuda',
    'nano',
    'loader',
    'models',
    'generate',
    'gptq',
    'peft',
  ],
};
const appsMayImport = ['transformers'];

const rule = (group, message) => ({ 'no-restricted-imports': ['error', { patterns: [{ group, message }] }] });
const deep = ['@q/*/src/*', '@q/*/dist/*', '**/packages/*/src/**'];

/** ESLint configurations that forbid every import which is not an arrow of the design. */
export const arrows = [
  ...Object.entries(allowed).map(([name, may]) => ({
    files: [`packages/${name}/src/**/*.ts`],
    ignores: ['**/*.test.ts', '**/*.bench.ts'],
    rules: rule(
      ['@q/*', ...may.flatMap((other) => [`!@q/${other}`]), ...deep],
      `packages/${name} may import only: ${may.join(', ') || 'no other package'} (tooling/arrows.js)`,
    ),
  })),
  {
    files: ['apps/*/src/**/*.ts'],
    rules: rule(
      ['@q/*', ...appsMayImport.map((name) => `!@q/${name}`), ...deep],
      'apps import only @q/transformers (tooling/arrows.js)',
    ),
  },
];
