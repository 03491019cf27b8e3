"""Many runs judged together: scaling, acceptance, reports."""
